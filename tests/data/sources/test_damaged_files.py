"""Files that are cut off, damaged or not what they seem: each is one sentence, and nothing is lost in silence."""

import gzip
import json
import os
import random
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from keylm.common.documents import Document
from keylm.common.errors import UserError
from keylm.data.sources.file_formats import MAX_LINE_BYTES
from keylm.data.sources.files import read_files
from keylm.data.sources.progress import ReadProgress
from keylm.recipe.sources import FilesConfig


def read(path):
    return list(read_files(FilesConfig(name="mine", path=str(path)), ReadProgress()))


def rows_of(num_rows):
    letters = random.Random(0)
    return [{"text": letters.randbytes(40).hex()} for _ in range(num_rows)]


def packed(rows, suffix):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return gzip.compress(data) if suffix == "gz" else zstandard.compress(data)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("num_rows", [1, 3, 5000])
@pytest.mark.parametrize("kept", [0, 0.3, 0.999])
def test_compressed_rows_that_were_cut_off_stop_the_reading(tmp_path, suffix, num_rows, kept):
    data = packed(rows_of(num_rows), suffix)
    path = tmp_path / f"rows.jsonl.{suffix}"
    path.write_bytes(data[: min(int(len(data) * kept), len(data) - 1)])
    with pytest.raises(UserError, match=rf"cannot read .*rows\.jsonl\.{suffix}: "):
        read(path)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_the_second_of_two_frames_may_be_cut_off_too(tmp_path, suffix):
    first, second = packed(rows_of(5), suffix), packed(rows_of(50), suffix)
    path = tmp_path / f"rows.jsonl.{suffix}"
    path.write_bytes(first + second)
    assert len(read(path)) == 55
    path.write_bytes(first + second[:-3])
    with pytest.raises(UserError, match="cannot read"):
        read(path)


def test_a_parquet_file_that_was_cut_off_stops_the_reading(tmp_path):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows_of(50)), path)
    data = path.read_bytes()
    for length in (0, 3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cannot read .*rows\.parquet"):
            read(path)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_a_pointer_of_git_lfs_is_named(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(UserError, match="Git LFS pointer, not the data; run `git lfs pull`"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_pipe_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="not a regular file"):
        read(tmp_path / name)


def test_deep_json_is_named_by_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "ok"}\n{"text": "x", "meta": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: the JSON is nested too deeply"):
        read(tmp_path / "a.jsonl")


def test_a_number_of_thousands_of_digits_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "ok", "id": ' + "9" * 5_000 + "}\n")
    assert read(tmp_path / "a.jsonl") == [Document(text="ok")]


def test_windows_encodings_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "ok"}\n', encoding="utf-16")
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: this is not UTF-8"):
        read(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text('{"text": "ok"}\n', encoding="utf-8-sig")
    assert read(tmp_path / "a.jsonl") == [Document(text="ok")]


BOMB = """
import resource, sys
from pathlib import Path
from keylm.data.sources.files import read_files
from keylm.data.sources.progress import ReadProgress
from keylm.recipe.sources import FilesConfig
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(read_files(FilesConfig(name="mine", path=sys.argv[1]), ReadProgress()))
except Exception as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_decompression_bomb_is_refused_in_little_memory(tmp_path, suffix):
    size, piece = 4 * MAX_LINE_BYTES, bytes(1 << 20)
    path = tmp_path / f"bomb.jsonl.{suffix}"
    with gzip.open(path, "wb") if suffix == "gz" else zstandard.open(path, "wb") as file:
        for _ in range(size // len(piece)):
            file.write(piece)
    assert path.stat().st_size < size / 500
    output = subprocess.run([sys.executable, "-c", BOMB, str(path)], capture_output=True, text=True).stdout
    sentence, kilobytes = output.splitlines()
    assert "line 1: the line is longer than 64 MiB" in sentence
    assert int(kilobytes) * 1024 < 5 * MAX_LINE_BYTES // 2


def test_a_parquet_file_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a" * 300_000_000]}), path, compression="zstd")
    with pytest.raises(UserError, match=r"rows.parquet: [0-9,]+ bytes of it unpack to 300,0.* smaller row groups"):
        read(path)
