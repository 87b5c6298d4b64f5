"""Which files of a folder are read: whatever is left out has a reason."""

import os
from pathlib import Path

import pytest

from keylm.common.errors import MissingSourceError, UserError
from keylm.data.sources import file_selection
from keylm.data.sources.file_selection import select_files


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder to fill, which is the working folder."""
    monkeypatch.chdir(tmp_path)

    def fill(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("text")

    return fill


def read(*patterns):
    return [str(path) for path in select_files(patterns).files]


def left_out(*patterns):
    return {str(path): reason for path, reason in select_files(patterns).left_out.items()}


def test_readme_and_license_beside_rows_are_left_out(tree):
    names = ["README.md", "sub/LICENSE", "LICENSE-MIT.txt", "sub/Readme_zh.md", "CITATION.md"]
    tree("mine/data/train.jsonl", *(f"mine/{name}" for name in names), "mine/readmepage.txt", "mine/notes.md")
    assert read("mine") == ["mine/data/train.jsonl", "mine/notes.md", "mine/readmepage.txt"]
    reasons = dict.fromkeys((f"mine/{name}" for name in names), file_selection.ABOUT_THE_DATA)
    assert left_out("mine") == reasons | {"mine/sub/LICENSE": file_selection.OTHER_FORMAT}


def test_a_readme_among_texts_is_a_text(tree):
    tree("docs/README.md", "docs/use.md")
    assert read("docs") == ["docs/README.md", "docs/use.md"]


def test_a_file_that_is_named_outright_is_read(tree):
    tree("mine/README.md", "mine/train.jsonl", "mine/.hidden.txt", "mine/a.pdf")
    assert read("mine", "mine/README.md", "mine/.hidden.txt") == [
        *("mine/.hidden.txt", "mine/README.md", "mine/train.jsonl")
    ]
    assert read("mine/a.pdf") == ["mine/a.pdf"]
    assert left_out("mine", "mine/README.md", "mine/.hidden.txt") == {"mine/a.pdf": file_selection.OTHER_FORMAT}


def test_endings_count_in_any_case(tree):
    tree("in/C.TXT", "in/d.Jsonl.GZ", "in/e.MD")
    assert read("in") == ["in/C.TXT", "in/d.Jsonl.GZ", "in/e.MD"]
    assert read("in/C.TXT") == ["in/C.TXT"]


def test_hidden_and_companion_files_are_left_out(tree):
    tree("in/a.txt", "in/._a.txt", "in/~$a.txt", "in/.git/old.md", "in/.cache/huggingface/x.jsonl")
    assert read("in") == read("in/*") == read("in/**") == ["in/a.txt"]
    assert left_out("in") == dict.fromkeys(["in/.cache", "in/.git", "in/._a.txt", "in/~$a.txt"], file_selection.HIDDEN)
    assert read("in/.git") == ["in/.git/old.md"]


@pytest.mark.parametrize("pattern", ["in", "in/**/*.txt", "in/*/*.txt"])
def test_links_are_followed_and_loops_end(tree, pattern):
    tree("elsewhere/b.txt", "in/deep/a.txt")
    Path("in/linked").symlink_to("../elsewhere")
    Path("in/deep/loop").symlink_to("..")
    assert read(pattern) == ["in/deep/a.txt", "in/linked/b.txt"]


def test_a_link_that_leads_nowhere_is_counted(tree):
    tree("in/a.txt")
    Path("in/broken.txt").symlink_to("nowhere.txt")
    os.mkfifo("in/pipe.jsonl")
    assert left_out("in") == dict.fromkeys(["in/broken.txt", "in/pipe.jsonl"], file_selection.NOT_REGULAR)


def test_a_name_with_a_dollar_is_a_name(tree, monkeypatch):
    tree("cash$money.txt", "in$the/a.txt", "price$9.txt")
    monkeypatch.delenv("money", raising=False)
    assert read("cash$money.txt") == ["cash$money.txt"]
    assert read("in$the") == read("in$the/*.txt") == ["in$the/a.txt"]
    assert read("price$9*") == ["price$9.txt"]
    with pytest.raises(MissingSourceError, match="needs the environment variable money"):
        read("cash$money.md")


@pytest.mark.parametrize("patterns", [[""], [" "], [], ["a.txt", ""]])
def test_an_empty_path_is_refused(tree, patterns):
    tree("a.txt")
    with pytest.raises(UserError, match="`path` of a source is empty"):
        select_files(patterns)


def test_a_home_that_does_not_exist_is_named(tree):
    with pytest.raises(UserError, match="names a home folder that does not exist"):
        read("~nobodyhere/texts")


@pytest.mark.parametrize("pattern", ["in", "in/**/*.txt"])
def test_a_folder_that_may_not_be_entered_is_named(tree, monkeypatch, pattern):
    tree("in/a.txt", "in/locked/b.txt")
    scandir = os.scandir

    def refuse(path):
        # The permission itself does not bind the superuser, as whom tests may run.
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot read in/locked: Permission denied"):
        read(pattern)
