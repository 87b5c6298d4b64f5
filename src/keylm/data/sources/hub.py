"""`hub`: a data set on the Hugging Face hub, read at a pinned commit through the shard cache."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import httpx

from keylm.common.documents import Document
from keylm.common.errors import MissingSourceError, UserError
from keylm.data.sources import hub_cache
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.data.sources.file_formats import read_file
from keylm.data.sources.hub_cache import Listing, Shard
from keylm.data.sources.progress import FULL, ReadProgress, SourceSlice
from keylm.data.sources.retries import TRANSIENT_STATUS, Retries, TransientError, retry_after_seconds
from keylm.data.sources.rows import RowFormat
from keylm.recipe import fingerprint
from keylm.recipe.presets import Preset, find_preset
from keylm.recipe.sources import HubConfig

ALL_SPLITS = "*"
_COMMIT = re.compile("[0-9a-f]{40}")
_CONNECTION_ERRORS = {"ConnectionError", "TimeoutError", "TransportError", "RequestException"}
"""Names of the base classes of connection errors: Python's, and those of httpx and requests. Which of the two
huggingface_hub raises depends on its version."""


def read_hub(
    source: HubConfig,
    progress: ReadProgress,
    source_slice: SourceSlice = FULL,
    retries: Retries | None = None,
    prefer_messages: bool = False,
) -> Iterator[Document]:
    """The documents of one configuration and split, or of a slice of its files.

    Files come in the order of a hash of their paths: if only the first few are read, they are a fair sample of all
    subreddits or years. The resolved commit is kept in `progress.metadata`. While a file is read, the next one is
    downloaded.

    Raises:
        MissingSourceError: the data set is gated, private, unknown, unreachable, or, offline, not in the cache.
        UserError: there is no such configuration or split, or a row is not a document.
    """
    retries = retries or Retries()
    listing = resolve(source, retries)
    progress.metadata["commit"] = listing.commit
    shards = source_slice.select(listing.shards)
    progress.total = sum(shard.size for shard in shards)
    row_format = RowFormat(
        source.text_column,
        source.messages_column,
        source.system_column,
        source.include_rows,
        source.exclude_rows,
        source.message_trees,
        prefer_messages,
    )
    bytes_done = 0
    # Closing stops the download that is ahead when the caller takes no more documents.
    with closing(_local_paths(source, listing, shards, retries)) as paths:
        for shard, path in zip(shards, paths, strict=True):
            yield from read_file(path, row_format, progress)
            bytes_done += shard.size
            # Message trees come after the last row of a file has been read; the file counts in full once it is done.
            progress.done = bytes_done


def resolve(source: HubConfig, retries: Retries | None = None) -> Listing:
    """The commit and the files of a source; kept on this machine for use offline.

    A revision that is a commit is looked up only once.

    Raises:
        MissingSourceError: as for `read_hub`.
        UserError: there is no such configuration or split.
    """
    cached = hub_cache.load_listing(_listing_key(source))
    # A branch may have moved since; a commit never changes.
    if cached and (_is_offline() or _COMMIT.fullmatch(source.revision)):
        return cached
    if _is_offline():
        raise _not_cached(source, f"the list of files of {source.dataset} at `{source.revision}`")
    try:
        listing = (retries or Retries()).call(lambda: _look_up(source))
    except TransientError as error:
        raise _unreachable(source, str(error)) from error
    hub_cache.save_listing(_listing_key(source), listing)
    return listing


def _listing_key(source: HubConfig) -> str:
    return fingerprint(source.dataset, source.config, source.split, source.revision)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _local_paths(source: HubConfig, listing: Listing, shards: list[Shard], retries: Retries) -> Generator[Path]:
    """Paths of the shards on this machine, each downloaded if it is not there."""
    if _is_offline():
        for shard in shards:
            path = listing.local_path(shard)
            if path is None:
                raise _not_cached(source, f"{shard.path} of {source.dataset}")
            yield path
        return
    try:
        yield from hub_cache.download(listing, shards, retries)
    except httpx.HTTPStatusError as error:
        if error.response.headers.get("X-Error-Code") == "GatedRepo":
            raise _gated(source) from error
        raise _unreachable(source, f"{error.response.status_code} for {error.request.url.path}") from error
    except (TransientError, httpx.HTTPError) as error:
        raise _unreachable(source, str(error)) from error


def _look_up(source: HubConfig) -> Listing:
    """Ask the hub once for the commit and the files.

    Raises:
        TransientError: the hub is busy or unreachable.
        MissingSourceError, UserError: as for `resolve`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.hf_api import RepoFile

    hub = HfApi()
    try:
        # The listing of a gated data set is public: without this check the error would come with the first file.
        hub.auth_check(source.dataset, repo_type="dataset")
        commit = str(hub.dataset_info(source.dataset, revision=source.revision).sha)
        # Both at the commit, not at the branch, which may move between the two requests.
        names = _file_names(source, commit)
        tree = hub.list_repo_tree(source.dataset, recursive=True, revision=commit, repo_type="dataset")
        shards = {
            entry.path: Shard(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
            for entry in tree
            if isinstance(entry, RepoFile)
        }
        # Names are often sorted by year or subject, and with `max_bytes` only the first files are read.
        names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        return Listing(source.dataset, commit, tuple(shards[name] for name in names))
    except UserError:
        raise
    except GatedRepoError as error:
        raise _gated(source) from error
    except RevisionNotFoundError as error:
        raise MissingSourceError(f"the data set {source.dataset} has no revision `{source.revision}`") from error
    except RepositoryNotFoundError as error:
        raise MissingSourceError(
            f"the hub has no data set {source.dataset}, or it is private: check `dataset` of the source "
            f"`{source.name}`, or log in with `hf auth login`"
        ) from error
    except Exception as error:
        raise _as_transient(error) or _unreachable(source, _reason(error)) from error


def _file_names(source: HubConfig, commit: str) -> list[str]:
    """Paths within the repository of the files of this configuration and split, as `datasets` resolves them."""
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(source.dataset, source.config, revision=commit)
    except ValueError as error:
        raise UserError(f"the data set {source.dataset}: {' '.join(str(error).split())}") from error
    splits = builder.config.data_files or {}
    if source.split not in (ALL_SPLITS, *splits):
        raise UserError(f"{source.dataset} has no split `{source.split}`; it has {', '.join(splits) or 'none'}")
    prefix = f"hf://datasets/{source.dataset}@{commit}/"
    selected = splits if source.split == ALL_SPLITS else [source.split]
    return [str(name).removeprefix(prefix) for split in selected for name in splits[split]]


def _as_transient(error: BaseException | None) -> TransientError | None:
    """`error`, or its cause, as one that the next try may not meet; None if another try is useless."""
    if error is None:
        return None
    response = getattr(error, "response", None)
    if response is not None:
        # The hub answered, so whatever caused the exception to be wrapped, the status decides.
        if response.status_code not in TRANSIENT_STATUS:
            return None
        return TransientError(str(response.status_code), retry_after_seconds(response.headers))
    if _CONNECTION_ERRORS & {base.__name__ for base in type(error).__mro__}:
        return TransientError(_reason(error))
    return _as_transient(error.__cause__)


def _reason(error: BaseException) -> str:
    first_line = (str(error).strip() or "no reason given").splitlines()[0]
    return f"{type(error).__name__}: {first_line}"


def _not_cached(source: HubConfig, what: str) -> MissingSourceError:
    return MissingSourceError(
        f"offline, and {what} is not in the cache: run once without --offline (and HF_HUB_OFFLINE), or replace the "
        f"source `{source.name}` by local files"
    )


def _gated(source: HubConfig) -> MissingSourceError:
    return MissingSourceError(
        f"the data set {source.dataset} is gated: accept its terms on "
        f"https://huggingface.co/datasets/{source.dataset}, then log in with `hf auth login`"
    )


def _unreachable(source: HubConfig, reason: str) -> MissingSourceError:
    return MissingSourceError(
        f"cannot get the data set {source.dataset} from the hub ({reason}): check the network, run with --offline if "
        f"it was downloaded before, or replace the source `{source.name}` by local files"
    )


class HubSource(SourceType[HubConfig]):
    """A data set on the hub."""

    def read_documents(self, source: HubConfig, request: ReadRequest) -> Iterator[Document]:
        """See `read_hub`."""
        return read_hub(source, request.progress, request.source_slice, prefer_messages=request.prefer_messages)

    def availability(self, source: HubConfig) -> str:
        """How many files and gigabytes are in the cache."""
        listing = hub_cache.load_listing(_listing_key(source))
        local = [shard for shard in listing.shards if listing.local_path(shard)] if listing else []
        if not listing or not local:
            return "not downloaded"
        size = f"{sum(shard.size for shard in local) / 1e9:,.2f} GB"
        if len(local) == len(listing.shards):
            return f"cached, {size}"
        return f"partly: {len(local)} of {len(listing.shards)} files, {size}"

    def location(self, source: HubConfig) -> str:
        """Data set, configuration and split."""
        return " ".join(part for part in (source.dataset, source.config, source.split) if part)

    def preset(self, source: HubConfig) -> Preset | None:
        """The preset named in the recipe."""
        return find_preset(source.preset) if source.preset else None

    def pin(self, source: HubConfig) -> HubConfig:
        """Replace the revision by its commit; a source that is missing and may be stays as it is."""
        try:
            return source.model_copy(update={"revision": resolve(source).commit})
        except MissingSourceError:
            if source.on_missing == "stop":
                raise
            return source

    def label(self, source: HubConfig) -> str:
        """A link to the data set."""
        return f"[{source.dataset}](https://huggingface.co/datasets/{source.dataset})"

    def hub_dataset(self, source: HubConfig) -> str:
        """The id in the recipe."""
        return source.dataset
