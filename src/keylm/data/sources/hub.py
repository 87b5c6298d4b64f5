"""Documents from a data set on the Hugging Face hub, at a pinned commit, through the shard cache."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from keylm.common.documents import Document
from keylm.common.errors import MissingSourceError, UserError
from keylm.data.sources import hub_cache
from keylm.data.sources.files import read_file
from keylm.data.sources.hub_cache import Listing, Shard
from keylm.data.sources.progress import FULL, ReadProgress, SourceSlice
from keylm.data.sources.retries import TRANSIENT_STATUS, Retries, TransientError, retry_after_seconds
from keylm.recipe import fingerprint
from keylm.recipe.sources import HubConfig

ALL_SPLITS = "*"
_COMMIT = re.compile("[0-9a-f]{40}")
_LINE_FAILURES = {"ConnectionError", "TimeoutError", "TransportError", "RequestException"}
"""Names of the base classes of a lost line: Python's, and those of httpx and requests, one of which is below
huggingface_hub, whatever its version."""


def read_hub(
    source: HubConfig, reading: ReadProgress, part: SourceSlice = FULL, retries: Retries | None = None
) -> Iterator[Document]:
    """The documents of one configuration and split, or of a part of its files.

    Files come in the order of a hash of their paths, so that the first of them, where only these are read, are a fair
    sample of all subreddits or years. The commit that the revision stands for is kept in `reading.facts`. While a file
    is read, the next is fetched.

    Raises:
        MissingSourceError: the data set is gated, private, unknown, out of reach, or, offline, not in the cache.
        UserError: there is no such configuration or split, or a row is not a document.
    """
    retries = retries or Retries()
    listing = resolve(source, retries)
    reading.facts["commit"] = listing.commit
    wanted = part.of(listing.shards)
    reading.total = sum(shard.size for shard in wanted)
    done = 0
    with closing(_paths(source, listing, wanted, retries)) as paths:
        for shard, path in zip(wanted, paths, strict=True):
            yield from read_file(path, source, reading)
            done += shard.size
            reading.done = done


def resolve(source: HubConfig, retries: Retries | None = None) -> Listing:
    """The commit and the files of a source; kept on this machine, so that they can be had offline afterwards.

    A revision that is a commit is asked for only once.

    Raises:
        MissingSourceError: as for `read_hub`.
        UserError: there is no such configuration or split.
    """
    key = listing_key(source)
    known = hub_cache.load_listing(key)
    if known and (_is_offline() or _COMMIT.fullmatch(source.revision)):
        return known
    if _is_offline():
        raise MissingSourceError(
            f"offline, and the list of files of {source.dataset} at `{source.revision}` is not in the cache: run once "
            f"without --offline (and HF_HUB_OFFLINE), or replace the source `{source.name}` by local files"
        )
    try:
        listing = (retries or Retries()).call(lambda: _look_up(source))
    except TransientError as error:
        raise _unreachable(source, str(error)) from error
    hub_cache.save_listing(key, listing)
    return listing


def listing_key(source: HubConfig) -> str:
    """Under which name the cache keeps the list of files of a source."""
    return fingerprint(source.dataset, source.config, source.split, source.revision)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _paths(source: HubConfig, listing: Listing, wanted: list[Shard], retries: Retries) -> Generator[Path]:
    if _is_offline():
        yield from (_cached(source, listing, shard) for shard in wanted)
        return
    try:
        yield from hub_cache.download(listing, wanted, retries)
    except httpx.HTTPStatusError as error:
        if error.response.headers.get("X-Error-Code") == "GatedRepo":
            raise _gated(source) from error
        raise _unreachable(source, f"{error.response.status_code} for {error.request.url.path}") from error
    except (TransientError, httpx.HTTPError) as error:
        raise _unreachable(source, str(error)) from error


def _cached(source: HubConfig, listing: Listing, shard: Shard) -> Path:
    path = listing.local(shard)
    if path is None:
        raise MissingSourceError(
            f"offline, and {shard.path} of {source.dataset} is not in the cache: run once without --offline (and "
            f"HF_HUB_OFFLINE), or replace the source `{source.name}` by local files"
        )
    return path


def _look_up(source: HubConfig) -> Listing:
    """Ask the hub once.

    Raises:
        PassingError: it is busy or out of reach.
        MissingSourceError, UserError: as for `resolve`.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return _ask(source)
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
        raise _passing(error) or _unreachable(source, _reason(error)) from error


def _ask(source: HubConfig) -> Listing:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    hub = HfApi()
    hub.auth_check(source.dataset, repo_type="dataset")
    commit = str(hub.dataset_info(source.dataset, revision=source.revision).sha)
    names = _file_names(source, commit)
    tree = hub.list_repo_tree(source.dataset, recursive=True, revision=commit, repo_type="dataset")
    found = {entry.path: _shard(entry) for entry in tree if isinstance(entry, RepoFile)}
    return Listing(source.dataset, commit, tuple(found[name] for name in sorted(names, key=_scatter)))


def _scatter(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _file_names(source: HubConfig, commit: str) -> list[str]:
    """Paths, within the repository, of the files of this configuration and split, as `datasets` finds them."""
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(source.dataset, source.config, revision=commit)
    except ValueError as error:
        raise UserError(f"the data set {source.dataset}: {' '.join(str(error).split())}") from error
    splits = builder.config.data_files or {}
    if source.split not in (ALL_SPLITS, *splits):
        raise UserError(f"{source.dataset} has no split `{source.split}`; it has {', '.join(splits) or 'none'}")
    prefix = f"hf://datasets/{source.dataset}@{commit}/"
    chosen = splits if source.split == ALL_SPLITS else [source.split]
    return [str(name).removeprefix(prefix) for split in chosen for name in splits[split]]


def _shard(file: Any) -> Shard:
    return Shard(file.path, file.size, file.lfs.sha256 if file.lfs else file.blob_id)


def _passing(error: BaseException | None) -> TransientError | None:
    """What `error`, or what it came from, is for a second try; `None` where another try is in vain."""
    if error is None:
        return None
    response = getattr(error, "response", None)
    if response is not None:
        passing = response.status_code in TRANSIENT_STATUS
        return TransientError(str(response.status_code), retry_after_seconds(response.headers)) if passing else None
    if _LINE_FAILURES & {kind.__name__ for kind in type(error).__mro__}:
        return TransientError(_reason(error))
    return _passing(error.__cause__)


def _reason(error: BaseException) -> str:
    first_line = (str(error).strip() or "no reason given").splitlines()[0]
    return f"{type(error).__name__}: {first_line}"


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
