from __future__ import annotations

import importlib.util
import re
from importlib.resources import files
from pathlib import Path

import pytest

from keylm.typos.misspellings import misspellings


def test_misspellings_are_the_dictionary_inverted() -> None:
    text = files("codespell_lib").joinpath("data/dictionary.txt").read_text(encoding="utf-8")
    for word in ("receive", "definitely", "because", "the", "their", "didn't", "tomorrow"):
        expected = re.findall(rf"^([a-z']+)->{re.escape(word)}$", text, re.MULTILINE | re.IGNORECASE)
        assert expected
        assert list(misspellings(word)) == [wrong.lower() for wrong in expected]
    assert "recieve" in misspellings("receive")
    assert misspellings("xylograph") == ()


@pytest.mark.parametrize("word", ["cache", "a lot", "you're"])
def test_ambiguous_misspellings_are_not_used(word: str) -> None:
    """`ache->cache, ache`, `alot->a lot, allot` and `youre->your, you're` are the dictionary's."""
    assert not {"ache", "alot", "youre"} & set(misspellings(word))


def test_codespell_itself_is_not_imported() -> None:
    """Its code is under the GPL; its dictionary is read as a file."""
    spec = importlib.util.find_spec("keylm.typos.misspellings")
    assert spec is not None
    assert "import codespell" not in Path(spec.origin).read_text()
