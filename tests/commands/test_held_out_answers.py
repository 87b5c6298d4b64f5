"""The held-out answers at the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.made_up_run import made_up_run
from helpers.screen import assert_readable, printed

from keylm.commands.held_out_answers import show_held_out_answers
from keylm.recipe import Recipe
from keylm.run import Run, create


def write_samples(run: Run, samples: list[dict]) -> None:
    path = run.stage("eval") / "instruction_following.json"
    scores = json.loads(path.read_text())
    scores["sft"]["samples"] = samples
    path.write_text(json.dumps(scores))


def sample(request: str, answer: str, **verdicts: bool) -> dict:
    messages = [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "constraints": list(verdicts), "followed": list(verdicts.values())}


def test_the_first_requests_are_shown_whatever_the_verdict(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run")
    samples = [
        sample("Just talk.", "I talk."),
        sample("Say [bold] owl.", "owl owl", keyword=True, case=False),
        sample("Say it at length.", "word " * 500, length=False),
        sample("Third.", "3", digits=True),
        sample("Fourth.", "4", digits=True),
    ]
    write_samples(run, samples)
    screen = assert_readable(lambda: show_held_out_answers(run))
    assert "Just talk" not in screen
    assert "Fourth" not in screen
    assert "Say [bold] owl." in screen
    assert "✓ keyword, ✗ case (not followed)" in screen
    assert "(and so on)" in screen
    assert len(screen) < 2000


def test_nothing_is_shown_where_nothing_is_measured(tmp_path: Path) -> None:
    run = create(Recipe(name="new"), tmp_path / "run")
    assert printed(lambda: show_held_out_answers(run), 80) == ""
