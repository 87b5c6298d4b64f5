"""Text from the Python environment: the scan against `ast`, and what may and may not come out of it."""

import ast
import inspect
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from keylm.data.sources import installed_docs
from keylm.data.sources.installed_docs import english_paragraphs, extract_docstrings
from keylm.data.sources.progress import ReadProgress

MODULE = '''# A comment with """quotes"""
"""The module.

    With more to say."""

TEMPLATE = """not a docstring"""
RULES = {"key": "value", "# not a comment": 1}

class Thing:  # why not
    r"""A thing that costs \\$5."""

    label = \'"""\'

    def method(self, colon=":"):
        # first this
        \'\'\'Does a "thing".\'\'\'
        return """nor is this"""

async def later(): """Comes later."""
'''


def test_a_hand_written_module():
    assert list(extract_docstrings(MODULE)) == [
        "The module.\n\nWith more to say.",
        "A thing that costs \\$5.",
        'Does a "thing".',
        "Comes later.",
    ]


def test_the_scan_agrees_with_ast_on_the_standard_library():
    """Left out: docstrings in single quotes, which are not scanned for, and escapes, which stay as they are written."""
    scanned, parsed = Counter(), Counter()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text(encoding="utf-8")
        scanned.update(text for text in extract_docstrings(source) if "\\" not in text)
        parsed.update(_parsed(source))
    assert scanned.total() > 3000
    assert (scanned - parsed).total() < 0.005 * scanned.total()
    assert (parsed - scanned).total() < 0.005 * parsed.total()


def _parsed(source):
    lines = source.encode().split(b"\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring is None or "\\" in docstring:
                continue
            literal = lines[node.body[0].lineno - 1][node.body[0].col_offset :].lstrip(b"rRuU")
            if literal.startswith((b'"""', b"'''")):
                yield inspect.cleandoc(docstring)


def test_words_stay_and_code_goes():
    text = (
        "Return the sum of two numbers, `first` and `second`.\n\n"
        "first : int\n    The number to begin with.\n\n"
        ">>> add(1, 2)\n3\n\n"
        "x[i] = {1: 2, 3: (4, 5)}; y += 6 ** 7\n\n"
        "+----+----+\n| 10 | 20 |\n+----+----+"
    )
    assert english_paragraphs(text) == text.split("\n\n")[:2]


@pytest.fixture(scope="module")
def sample():
    return [document.text for document in islice(installed_docs.read_installed_docs(ReadProgress()), 1500)]


def test_a_prefix_is_english_of_many_packages(sample):
    text = "\n".join(sample)
    words = re.findall(r"[a-z]+", text.lower())
    assert len(text) > 1_000_000
    assert 0.03 < words.count("the") / len(words) < 0.1
    assert all(name in text for name in ("torch", "transformers", "numpy", "pandas"))


def test_no_paragraph_comes_twice(sample):
    paragraphs = [" ".join(paragraph.split()) for text in sample for paragraph in re.split(r"\n\s*\n", text)]
    assert len(set(paragraphs)) == len(paragraphs)


def test_long_texts_are_cut_at_the_end_of_a_paragraph():
    paragraphs = [f"{number} " * 200 for number in range(100)]
    parts = list(installed_docs._join_paragraphs(paragraphs))
    assert "\n\n".join(parts) == "\n\n".join(paragraphs)
    assert all(4096 <= len(part) < 6000 for part in parts[:-1])


def test_keylm_and_the_benchmarks_are_not_read():
    names = [name for name, _ in installed_docs._find_files()]
    assert "json/decoder.py" in names
    assert "torch/nn/functional.py" in names
    assert any(re.fullmatch(r"torch-.*\.dist-info/METADATA", name) for name in names)
    assert not [name for name in names if re.search(r"(^|/)(keylm|lm_eval|tests?|site-packages)/", name)]


def test_the_order_is_the_same_in_another_process(sample):
    code = (
        "from itertools import islice; from keylm.data.sources import installed_docs;"
        "from keylm.data.sources.progress import ReadProgress\n"
        "print([d.digest for d in islice(installed_docs.read_installed_docs(ReadProgress()), 100)])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first = [document.digest for document in islice(installed_docs.read_installed_docs(ReadProgress()), 100)]
    assert other.stdout.strip() == str(first)
