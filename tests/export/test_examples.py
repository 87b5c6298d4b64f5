"""The requests that the chat page suggests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.made_up_run import made_up_run
from helpers.tiny_run import tiny_run
from safetensors.torch import load_file

from keylm.common.files import write_json
from keylm.export.examples import example_requests
from keylm.gguf.file import write_gguf
from keylm.gguf.header import read_gguf_header
from keylm.run import Run

OWN = ["What is a tide?", "Naïve 🦊: name 3 animals, please."]


def test_held_out_requests_that_are_followed_are_suggested(tmp_path: Path) -> None:
    run = made_up_run(tmp_path)
    two_turns = [*_talk("Write about tides."), *_talk("Now without commas.")]
    _write_samples(
        run,
        _sample(_talk("Half followed."), True, False),
        _sample(two_turns, True),
        _sample(_talk("No constraint.")),
        _sample(_talk("Too long for a button. " * 9), True),
        *(_sample(_talk(f"Followed {number}."), True, True) for number in range(5)),
    )
    assert example_requests(run) == ["Followed 0.", "Followed 1.", "Followed 2."]


def test_a_run_without_scores_suggests_nothing(tmp_path: Path) -> None:
    assert example_requests(tiny_run(tmp_path)) == []


def test_requests_of_the_recipe_reach_the_gguf(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", export={"examples": OWN})
    assert example_requests(run) == OWN
    path, weights = tmp_path / "a.gguf", load_file(run.weights("sft"))
    write_gguf(run.recipe, run.stage("tokenizer"), weights, "F16", path, examples=example_requests(run))
    assert read_gguf_header(path).examples == OWN


def _talk(request: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": request}, {"role": "assistant", "content": "The tide comes and goes."}]


def _sample(messages: list[dict[str, str]], *followed: bool) -> dict[str, Any]:
    return {"messages": messages, "constraints": ["lowercase"] * len(followed), "followed": list(followed)}


def _write_samples(run: Run, *samples: dict[str, Any]) -> None:
    write_json(run.stage("eval") / "instruction_following.json", {"sft": {"samples": samples}})
