"""The shard cache: files of hub data sets on this machine, each downloaded once and verified by its hash.

Files are stored in the cache that all tools of the hub share (`HF_HUB_CACHE`), under huggingface_hub's names and locks:
`hf cache` lists and removes them, and what another tool has downloaded is not downloaded again. The transfer is our
own, because huggingface_hub 2 restarts a file after a kill and does not compare hashes. The listing of a data set is
stored as well, for use offline.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event

import httpx
from filelock import FileLock

from keylm.common.errors import KeyLMError
from keylm.common.files import read_json, write_json
from keylm.data.sources.retries import TRANSIENT_STATUS, Retries, TransientError, retry_after_seconds

_SHA256_DIGITS = 64


@dataclass(frozen=True)
class Shard:
    """One file of a data set."""

    path: str
    """Within the repository."""
    size: int
    """In bytes."""
    digest: str
    """SHA-256 of a file in large file storage; git's SHA-1 (of the file as a blob) otherwise."""


@dataclass(frozen=True)
class Listing:
    """The files of one configuration and split at one commit, in the order in which they are read."""

    dataset: str
    commit: str
    shards: tuple[Shard, ...]

    def local_path(self, shard: Shard) -> Path | None:
        """Where the shard is on this machine; None unless it is there in full."""
        path = _repository(self.dataset) / "snapshots" / self.commit / shard.path
        return path if path.exists() and path.stat().st_size == shard.size else None


def load_listing(key: str) -> Listing | None:
    """The listing that was stored under `key`, if any."""
    path = _listing_path(key)
    if not path.exists():
        return None
    values = read_json(path)
    return Listing(values["dataset"], values["commit"], tuple(Shard(**shard) for shard in values["shards"]))


def save_listing(key: str, listing: Listing) -> None:
    """Store a listing under `key`."""
    path = _listing_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        write_json(path, asdict(listing))


def download(listing: Listing, shards: list[Shard], retries: Retries) -> Generator[Path]:
    """Local paths of the shards, in order; each is downloaded while the one before it is in use.

    Raises:
        TransientError: the hub failed in every try.
        httpx.HTTPStatusError: the hub refuses the file.
        KeyLMError: the file cannot be written.
    """
    stopped = Event()

    def start(shard: Shard) -> Future[Path]:
        return pool.submit(_download_shard, listing, shard, retries, stopped)

    # One download at a time: it takes the whole line anyway, and the hub limits the rate of requests.
    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            ahead = [start(shard) for shard in shards[:1]]
            for number in range(len(shards)):
                path = ahead.pop().result()
                ahead = [start(shard) for shard in shards[number + 1 : number + 2]]
                yield path
        finally:
            # The reader has had enough: the pool must not wait for a file of gigabytes that nobody needs.
            stopped.set()


def _download_shard(listing: Listing, shard: Shard, retries: Retries, stopped: Event) -> Path:
    local = listing.local_path(shard)
    if local:
        return local
    repository = _repository(listing.dataset)
    blob = repository / "blobs" / shard.digest
    pointer = repository / "snapshots" / listing.commit / shard.path
    lock = repository.parent / ".locks" / repository.name / f"{shard.digest}.lock"
    try:
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if listing.local_path(shard):  # Another process downloaded it while this one waited for the lock.
                return pointer
            # Another revision may have the same file under the same blob.
            if _size(blob) != shard.size:
                partial = blob.with_name(f"{blob.name}.incomplete")
                retries.call(lambda: _transfer(listing, shard, partial, stopped), stopped)
                # Renamed when it is complete: other tools of the hub take any file under this name for the whole.
                partial.replace(blob)
            _link(blob, pointer)
    except OSError as error:
        raise KeyLMError(f"cannot keep {shard.path} in {repository}: {error.strerror or error}") from error
    return pointer


def _transfer(listing: Listing, shard: Shard, partial: Path, stopped: Event) -> None:
    """One try to complete `partial`, whatever it holds already, and to verify it.

    Raises:
        TransientError: the file is incomplete or wrong; `progressed` if there is more of it than before.
    """
    partial.touch()
    before = _size(partial)
    if before < shard.size:
        _append(listing, shard, partial, stopped)
    size = _size(partial)
    if size < shard.size:
        raise TransientError(f"{shard.path} ended after {size:,} of {shard.size:,} bytes", progressed=size > before)
    if size > shard.size or _digest(partial, shard) != shard.digest:
        # Nothing tells which bytes are wrong, so the next try begins with an empty file.
        partial.unlink()
        raise TransientError(f"{shard.path} came with the wrong content")


def _append(listing: Listing, shard: Shard, partial: Path, stopped: Event) -> None:
    """Download the bytes that `partial` lacks; all of them if the server ignores the range."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(listing.dataset, shard.path, repo_type="dataset", revision=listing.commit)
    before = _size(partial)
    # The bytes must be those of the file: a compressed response could not be resumed.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={before}-"}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                partial.unlink(missing_ok=True)
                raise TransientError(f"{shard.path} is shorter than {shard.size:,} bytes")
            if response.status_code in TRANSIENT_STATUS:
                raise TransientError(str(response.status_code), retry_after_seconds(response.headers))
            response.raise_for_status()
            is_resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
            with partial.open("ab" if is_resumed else "wb") as file:
                for chunk in response.iter_raw():
                    if stopped.is_set():
                        raise TransientError(f"{shard.path} is not needed any more")
                    file.write(chunk)
    except httpx.TransportError as error:
        reason = f"{shard.path}, {type(error).__name__}"
        raise TransientError(reason, progressed=_size(partial) > before) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path, shard: Shard) -> str:
    with path.open("rb") as file:
        if len(shard.digest) == _SHA256_DIGITS:
            return hashlib.file_digest(file, "sha256").hexdigest()
        # git hashes a header before the content.
        head = hashlib.sha1(b"blob %d\0" % shard.size)
        return hashlib.file_digest(file, head.copy).hexdigest()


def _link(blob: Path, pointer: Path) -> None:
    """Make `pointer` a relative link to the blob, as huggingface_hub does; without links, move the blob there."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        blob.replace(pointer)


def _repository(dataset: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"datasets--{dataset.replace('/', '--')}"


def _listing_path(key: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "keylm" / "listings" / f"{key}.json"
