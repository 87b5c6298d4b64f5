"""What `keylm preview` prints: every document marked, every style where it belongs, readable without colours."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from keylm.commands.preview import paint, show_preview
from keylm.common.arrays import IGNORE_INDEX
from keylm.common.errors import UserError
from keylm.run import Run, open_run
from keylm.tokenizer.tokenizer import Tokenizer


def shown(run: Run, stage: str, step: int = 0, rows: int = 1) -> str:
    console = Console(record=True, width=100, file=io.StringIO())
    show_preview(run, stage, step, rows, console)
    return console.export_text()


def styles_of(text: Text, part: str) -> set[str]:
    """Styles that lie over any character of the first occurrence of `part`."""
    start = text.plain.index(part)
    return {str(s.style).strip() for s in text.spans if s.start < start + len(part) and s.end > start}


@pytest.fixture
def tokenizer(prepared: Run) -> Tokenizer:
    return Tokenizer.load(prepared.stage("tokenizer"))


def test_documents_learned_tokens_control_tokens_and_padding_are_told_apart(tokenizer: Tokenizer) -> None:
    ask, answer, other = (tokenizer.encode(text) for text in ("the river", " stone", "old garden"))
    end = tokenizer.end_of_text
    tokens = np.array([*ask, *answer, end, *other, end, end, end])
    targets = np.full(len(tokens), IGNORE_INDEX)
    targets[len(ask) - 1 : len(ask) + len(answer)] = [*answer, end]
    first = len(ask) + len(answer) + 1
    document_ids = np.array([0] * first + [1] * (len(other) + 1) + [2] * 2)
    text = paint(tokenizer, tokens, targets, document_ids)
    marker = tokenizer.decode([end], keep_control=True)
    assert text.plain == f"[1]the river stone{marker}\n[2]old garden{marker}\n[padding: 2 tokens]"
    assert styles_of(text, "the river") == {"bright_black"}
    assert styles_of(text, " stone") == {"green"}
    assert styles_of(text, marker) == {"green reverse"}
    assert styles_of(text, "old garden") == {"bright_black on grey11"}
    assert styles_of(text, "[padding") == {"dim"}


def test_a_character_of_several_tokens_is_shown_whole(tokenizer: Tokenizer) -> None:
    tokens = np.array(tokenizer.encode("東京"))
    assert len(tokens) > 2
    text = paint(tokenizer, tokens, np.append(tokens[1:], IGNORE_INDEX), np.zeros(len(tokens), dtype=int))
    assert "京" in text.plain


def test_rows_say_where_they_come_from_without_colours(tiny_run: Run) -> None:
    lines = shown(tiny_run, "pretrain", step=3, rows=2)
    assert "attention runs across documents" in lines.splitlines()[0]
    assert lines.count("pretrain step 3, row ") == 2
    assert "epoch 0, block " in lines
    assert "\x1b" not in lines
    packed = shown(tiny_run, "sft")
    assert "attention stays within each document" in packed.splitlines()[0]
    assert "[1]<|im_start|>" in packed


def test_parts_of_blocks_are_named(tiny_run: Run) -> None:
    phases = "train.phases=[{until: 0.5, sequence_length: 16}, {until: 1.0}]"
    run = open_run(tiny_run.folder, [phases])
    assert ", part 0" in shown(run, "pretrain")
    assert ", part" not in shown(run, "pretrain", step=29)


def test_a_step_beyond_the_end_and_a_stage_without_batches_are_named(tiny_run: Run) -> None:
    with pytest.raises(UserError, match=r"--step 30: pretrain has the steps 0 to 29"):
        shown(tiny_run, "pretrain", step=30)
    with pytest.raises(UserError, match=r"--stage eval: only"):
        shown(tiny_run, "eval")
