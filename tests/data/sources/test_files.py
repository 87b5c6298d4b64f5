"""Local files of every format, and the error for every way in which they can be wrong."""

import csv
import gzip
import json
import random

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from keylm.common.documents import Document
from keylm.common.errors import UserError
from keylm.data.sources import file_formats
from keylm.data.sources.file_formats import SPLIT_BYTES
from keylm.data.sources.files import read_files
from keylm.data.sources.progress import ReadProgress
from keylm.recipe.sources import FilesConfig

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho 🦊"}]
ROWS = [{"text": "first"}, {"text": "zweitß"}, {"messages": TALK}, {"text": None, "messages": TALK}]
DOCUMENTS = [Document(text="first"), Document(text="zweitß"), *[Document(messages=tuple(TALK))] * 2]


def read(path, **settings):
    return list(read_files(FilesConfig(name="mine", path=path, **settings), ReadProgress()))


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("jsonl", bytes),
        ("jsonl.gz", gzip.compress),
        ("jsonl.zst", zstandard.compress),
        ("jsonl.zst", lambda data: zstandard.compress(data[:20]) + zstandard.compress(data[20:])),
    ],
    ids=["plain", "gz", "zst", "zst of two frames"],
)
def test_lines_of_json_packed_or_not(tmp_path, suffix, pack):
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(pack(b"\n" + lines(ROWS)))
    assert read(str(path)) == DOCUMENTS


ALPACA = [
    {"instruction": f"Sum up {n}.", "input": 'A "text",\nof two lines: ß.', "output": "It is " + "long. " * n}
    for n in range(60)
]
ALPACA_DOCUMENTS = [
    Document(
        messages=(
            {"role": "user", "content": f"{row['instruction']}\n\n{row['input']}"},
            {"role": "assistant", "content": row["output"]},
        )
    )
    for row in ALPACA
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [1, 50, 1 << 16])
def test_an_array_of_json_in_chunks_of_any_size(tmp_path, monkeypatch, indent, chunk):
    monkeypatch.setattr(file_formats, "_CHUNK_CHARACTERS", chunk)
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps(ALPACA, indent=indent, ensure_ascii=False))
    assert read(str(path)) == ALPACA_DOCUMENTS


def test_lines_of_json_under_the_ending_of_json(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(lines(ROWS))
    assert read(str(path)) == DOCUMENTS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[{"text": "a"}, {"text": ', "item 2: this is not JSON"),
        ('[{"text": "a"}', "item 2: this is not JSON"),
        ('[{"text": "a"}] and more', "item 2: this is not JSON"),
        ('[{"text": "a"}, 3]', "item 2: an item must be a JSON object"),
        ('{"data": []}', "no `text` and no `messages` among data"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_broken_array_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "rows.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=sentence):
        read(str(path))


@pytest.mark.parametrize(("ending", "separator"), [("csv", ","), ("csv", ";"), ("CSV", "\t"), ("tsv", "\t")])
def test_tables_as_spreadsheets_write_them(tmp_path, ending, separator):
    path = tmp_path / f"alpaca.{ending}"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, list(ALPACA[0]), delimiter=separator)
        table.writeheader()
        table.writerows(ALPACA)
    assert read(str(path)) == ALPACA_DOCUMENTS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("text,n\na,1\nb,2,3\n", "row 2: there are 3 cells for 2 columns"),
        ('text,n\n"a,1\n', "after row 0: this is not CSV"),
        ("body,n\na,1\n", "no `text` and no `messages` among body, n"),
        (b"text\n\xff\n", "not UTF-8"),
    ],
)
def test_a_broken_table_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=sentence):
        read(str(path))


def test_tables_of_something_else_beside_texts_are_counted(tmp_path):
    (tmp_path / "a.txt").write_text("Some text.")
    (tmp_path / "budget.csv").write_text("month,sum\nMay,3\n")
    (tmp_path / "package.json").write_text('{"name": "x"}')
    (tmp_path / "replies.csv").write_text("prompt,response\nHi,Ho\n")
    skipped, progress = [], ReadProgress()
    progress.skip = lambda reason, sample: skipped.append((reason, sample))
    assert len(list(read_files(FilesConfig(name="mine", path=str(tmp_path)), progress))) == 2
    assert [reason for reason, _ in skipped] == ["table without text"] * 2
    assert "budget.csv" in skipped[0][1]


def test_parquet_over_several_row_groups(tmp_path):
    rows = [{"text": row.get("text"), "messages": row.get("messages"), "other": 1} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=2)
    assert read(str(tmp_path / "rows.parquet")) == DOCUMENTS


def test_parquet_is_held_in_memory_by_one_row_group(tmp_path):
    letters = random.Random(0)
    rows = [{"text": letters.randbytes(5_000).hex(), "other": letters.randbytes(5_000).hex()} for _ in range(1_000)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=50)
    del rows
    before = pyarrow.total_allocated_bytes()
    documents = read_files(FilesConfig(name="mine", path=str(tmp_path / "rows.parquet")), ReadProgress())
    held = [pyarrow.total_allocated_bytes() - before for _ in documents]
    assert len(held) == 1_000
    assert max(held) < 1_000 * 10_000 / 4


def test_columns_of_other_names(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(lines([{"body": "first"}, {"talk": TALK}]))
    path = str(tmp_path / "rows.jsonl")
    assert read(path, text_column="body", messages_column="talk") == [DOCUMENTS[0], DOCUMENTS[2]]


def test_other_keys_of_a_message_are_ignored(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(lines([{"messages": [{**turn, "id": 7} for turn in TALK]}]))
    assert read(str(tmp_path / "rows.jsonl")) == [DOCUMENTS[2]]


def test_a_short_text_file_is_one_document(tmp_path):
    (tmp_path / "note.md").write_bytes(b"\xef\xbb\xbf# Title\r\n\r\nGr\xc3\xbc\xc3\x9fe")
    assert read(str(tmp_path / "note.md")) == [Document(text="# Title\r\n\r\nGrüße")]


@given(text=st.text(alphabet="aé猫 \n", max_size=200), factor=st.sampled_from([1, 300, 3000]))
def test_a_long_text_file_is_cut_and_loses_nothing(tmp_path_factory, text, factor):
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text(text * factor, encoding="utf-8", newline="")
    parts = [document.text for document in read(str(path))]
    assert "".join(parts) == text * factor
    assert all(len(part) <= 5 * SPLIT_BYTES for part in parts)


def test_a_long_text_file_is_cut_at_blank_lines(tmp_path):
    paragraph = "word " * 500 + "\n\n"
    (tmp_path / "book.txt").write_text(paragraph * 40)
    parts = [document.text for document in read(str(tmp_path / "book.txt"))]
    assert len(parts) == 6
    assert all(part.endswith("\n\n") for part in parts)


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("$MY_TEXTS", ["a.txt", "b.txt", "deep/down/c.md"]),
        ("~/*.txt", ["a.txt", "b.txt"]),
        (["${MY_TEXTS}/**/*.md", "../b.txt", "../a.txt", "../*.txt"], ["a.txt", "b.txt", "deep/down/c.md"]),
        (["down"], ["deep/down/c.md"]),
        ("$MY_TEXTS/d*", ["deep/down/c.md"]),
    ],
)
def test_folders_patterns_and_lists_are_read_sorted(tmp_path, monkeypatch, path, texts):
    for name in ("b.txt", "a.txt", "deep/down/c.md", "picture.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setenv("MY_TEXTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "deep")
    assert [document.text for document in read(path)] == texts


def test_progress_counts_the_bytes_on_disk(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        (tmp_path / name).write_bytes(gzip.compress(lines([{"text": f"{name} {i}"} for i in range(1000)])))
    progress = ReadProgress()
    fractions = [progress.fraction for _ in read_files(FilesConfig(name="mine", path=str(tmp_path)), progress)]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] <= 0.5
    assert fractions[-1] == 1


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"text": "ok"}\n{"text": ', r"a\.jsonl, line 2: this is not JSON"),
        ("a.jsonl", b'{"text": "\xff"}', r"a\.jsonl, line 1: this is not UTF-8"),
        ("a.jsonl", b'["ok"]', r"a\.jsonl, line 1: a line must be a JSON object"),
        ("a.jsonl", b'{"text": 3}', r"a\.jsonl, line 1: `text` is not text but int"),
        ("a.jsonl", b'{"body": "ok"}', r"line 1: there is no `text` and no `messages` among body; name the right one"),
        ("a.jsonl", b'{"messages": "Hi"}', r"line 1: `messages` is not a list of messages but str"),
        ("a.jsonl", b'{"messages": [{"role": "user"}]}', r"line 1, message 1: a message must have a `role` and a"),
        ("a.jsonl.gz", b"no gzip", r"cannot read .*a\.jsonl\.gz: Not a gzipped file"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "ok"}' * 99)[:-9],
            r"cannot read .*a\.jsonl\.gz: Compressed file ended",
        ),
        ("a.jsonl.zst", b"no zstandard", r"cannot read .*a\.jsonl\.zst: zstd"),
        ("a.parquet", b"no parquet", r"cannot read .*a\.parquet: "),
        ("a.txt", b"fine\n\xff\xfe\n", r"a\.txt, line 2: this is not UTF-8"),
        ("a.txt", b"fine\ncut \xc3", r"a\.txt, line 2: this is not UTF-8"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        read(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_parquet_file_without_the_columns_is_an_error(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"body": "x", "id": 1}]), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="there is no `text` and no `messages` among body, id"):
        read(str(tmp_path / "rows.parquet"))


@pytest.mark.parametrize("path", ["nowhere", "nowhere/*.txt", "."])
def test_a_path_without_files_is_an_error(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"matches no file that can be read \(\.txt, \.md"):
        read(path)


def test_an_unsupported_format_is_an_error(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(UserError, match=r"the format of .*a\.pdf is not supported; supported are \.txt"):
        read(str(tmp_path / "a.pdf"))


def test_a_variable_that_is_not_set_is_an_error(monkeypatch):
    monkeypatch.delenv("MY_TEXTS", raising=False)
    with pytest.raises(UserError, match="needs the environment variable MY_TEXTS, which is not set"):
        read("${MY_TEXTS}/books")


PAGE = """<html><head><title>Rivers</title></head><body><nav><a href="a">Home</a> <a href="b">Shop</a></nav><article>
<h1>Rivers</h1><p>A river is long &amp; wide. It flows from the hills to the sea, and nobody knows why.</p>
<p>Boats are found on rivers of all sizes, and so are ducks, in every season but one.</p></article>
<footer>Cookies, imprint</footer></body></html>"""


def test_of_a_web_page_the_main_text_is_read(tmp_path):
    pytest.importorskip("trafilatura", exc_type=ImportError)
    (tmp_path / "page.HTML").write_text(PAGE)
    (tmp_path / "empty.htm").write_text("<html><body></body></html>")
    skipped, progress = [], ReadProgress()
    progress.skip = lambda reason, sample: skipped.append(reason)
    [document] = read_files(FilesConfig(name="mine", path=str(tmp_path)), progress)
    assert "long & wide" in document.text
    assert "ducks" in document.text
    assert not {"Shop", "imprint", "<p>"} & set(document.text.split())
    assert skipped == ["web page without text"]


def test_web_pages_that_cannot_be_read_are_counted_or_named(tmp_path, monkeypatch):
    monkeypatch.setattr(file_formats, "find_spec", lambda name: None)
    (tmp_path / "page.html").write_text(PAGE)
    with pytest.raises(UserError, match=r"page\.html: web pages need trafilatura, `pip install 'keylm\[html\]'`"):
        read(str(tmp_path / "page.html"))
    (tmp_path / "a.txt").write_text("Some text.")
    skipped, progress = [], ReadProgress()
    progress.skip = lambda reason, sample: skipped.append(reason)
    assert len(list(read_files(FilesConfig(name="mine", path=str(tmp_path)), progress))) == 1
    assert skipped == ["web page, for which `pip install 'keylm[html]'`"]
