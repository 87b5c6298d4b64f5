"""Speed and memory of `prepare`: `KEYLM_SHARED=... python benchmarks/prepare.py [speed] [memory] [tokenizer]`.

* speed: the whole stage (read, clean, deduplicate, tokenize, write) against `tokenizers`' own `encode_batch` on the
  same text and cores, in alternating pairs; medians and the ratio.
* memory: peak of the stage in a process of its own, on a tenth of the text and on all of it (about 40 and 400 MB).
* tokenizer: peak memory and seconds of training a tokenizer on 1 GB (the text three times).

KEYLM_SHARED names a folder with `text/*.jsonl.zst`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from keylm import run as runs
from keylm.common.documents import Document
from keylm.common.files import read_json
from keylm.data.prepare.stage import run_prepare
from keylm.data.sources.files import read_files
from keylm.data.sources.progress import ReadProgress
from keylm.recipe import Recipe
from keylm.recipe.sources import FilesConfig
from keylm.tokenizer import tokenizer
from keylm.tokenizer.training import train_tokenizer

TEXT = Path(os.path.expandvars("$KEYLM_SHARED/text"))
SPEED_FILES = ("formal_wikipedia", "social_irc_ubuntu", "conv_sgd")
PAIRS = 3
VOCAB_SIZE = 8192


def main() -> None:
    """Run the measurements named on the command line, or all."""
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or list(MEASUREMENTS):
            MEASUREMENTS[name](Path(folder))


def speed(folder: Path) -> None:
    """Print the MB/s of the stage and of `encode_batch` for each file."""
    for name in SPEED_FILES:
        source = FilesConfig(name=name.replace("_", "-"), path=str(TEXT / f"{name}.jsonl.zst"))
        run = _make_run(folder / name, [source])
        texts = [text for document in _documents(source) for text in document.contents]
        megabytes = sum(len(text.encode()) for text in texts) / 1e6
        backend = tokenizer.Tokenizer.load(run.stage("tokenizer")).backend
        pairs = [(_seconds(lambda: _encode(backend, texts)), _seconds(lambda: _prepare(run))) for _ in range(PAIRS)]  # noqa: B023
        bare, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(bare / ours for bare, ours in pairs)
        rates = f"bare {megabytes / bare:5.2f} MB/s  prepare {megabytes / ours:5.2f} MB/s"
        print(f"{name:<22} {megabytes:6.1f} MB  {rates}  ratio {ratio:.2f}")


def memory(folder: Path) -> None:
    """Print the stage's peak memory on a tenth of the text and on all of it."""
    peaks = {}
    for fraction in (0.1, 1.0):
        command = [sys.executable, __file__, "child", str(folder / f"memory-{fraction}"), str(fraction)]
        peaks[fraction] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{peaks[fraction]['megabytes']:6.0f} MB of text: peak {peaks[fraction]['peak_mib']:.0f} MiB")
    print(f"all to a tenth: {peaks[1.0]['peak_mib'] / peaks[0.1]['peak_mib']:.2f}")


def child(folder: Path, fraction: float) -> None:
    """Prepare a fraction of every file, in a process of its own; print megabytes and peak memory as JSON."""
    sources = [
        FilesConfig(
            name=path.name.split(".")[0].replace("_", "-"), path=str(path), max_bytes=_max_bytes(path, fraction)
        )
        for path in sorted(TEXT.glob("*.jsonl.zst"))
    ]
    run = _make_run(folder, sources)
    run_prepare(run)
    manifests = [read_json(path) for path in run.stage("prepare").glob("pretrain/*/manifest.json")]
    megabytes = sum(manifest["train"]["bytes"] for manifest in manifests) / 1e6
    print(json.dumps({"megabytes": megabytes, "peak_mib": _peak_mib()}))


def vocabulary(_: Path) -> None:
    """Print the peak memory and the seconds of training a tokenizer on 1 GB of text."""
    start = time.perf_counter()
    train_tokenizer(_gigabyte(), VOCAB_SIZE, "qwen2")
    print(f"tokenizer, 1 GB of text: {time.perf_counter() - start:.0f} s, peak {_peak_mib():.0f} MiB")


def _make_run(folder: Path, sources: list[FilesConfig]) -> runs.Run:
    """A run over `sources`, with a tokenizer trained on the beginning of the first one."""
    values = {
        "name": "bench",
        "data": {"sources": [source.model_dump() for source in sources]},
        "sft": {"sources": [{"name": "talk", "type": "instructions", "num_documents": 10}]},
    }
    run = runs.create(Recipe.model_validate(values), folder)
    texts = (
        text for document, _ in zip(_documents(sources[0]), range(2000), strict=False) for text in document.contents
    )
    train_tokenizer(texts, VOCAB_SIZE, "qwen2").save(run.stage("tokenizer"), 2048)
    return run


def _documents(source: FilesConfig) -> Iterator[Document]:
    return read_files(source, ReadProgress())


def _encode(backend: tokenizer.Backend, texts: list[str]) -> None:
    """`encode_batch` on all texts, about a megabyte at a time: more at once would need memory for all tokens."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size > 1_000_000:
            backend.encode_batch(batch, add_special_tokens=False)
            batch, size = [], 0
    backend.encode_batch(batch, add_special_tokens=False)


def _prepare(run: runs.Run) -> None:
    shutil.rmtree(run.stage("prepare"), ignore_errors=True)
    run_prepare(run)


def _max_bytes(path: Path, fraction: float) -> int | None:
    if fraction == 1.0:
        return None
    return int(fraction * sum(document.num_bytes for document in _documents(FilesConfig(name="x", path=str(path)))))


def _gigabyte() -> Iterator[str]:
    total = 0
    for path in cycle(sorted(TEXT.glob("*.jsonl.zst"))):
        for document in _documents(FilesConfig(name="x", path=str(path))):
            yield from document.contents
            total += document.num_bytes
            if total >= 1e9:
                return


def _seconds(action: object) -> float:
    start = time.perf_counter()
    action()  # type: ignore[operator]
    return time.perf_counter() - start


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


MEASUREMENTS = {"speed": speed, "memory": memory, "tokenizer": vocabulary}

if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(Path(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
