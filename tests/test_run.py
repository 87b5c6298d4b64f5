"""The run folder: which stages are done, with which settings, and that nothing else is written or used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.made_up_run import made_up_run
from helpers.tiny_recipe import write_tiny_recipe
from safetensors.torch import save_file

from keylm.common.errors import KeyLMError, UserError
from keylm.recipe.fingerprint import stage_inputs
from keylm.run import Run, create, open_run
from keylm.stages import run_all, run_until


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder: its bytes, and when it was written."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def change(run: Run, *overrides: str) -> Run:
    return open_run(run.folder, list(overrides))


def test_a_stage_made_from_other_settings_is_refused_by_the_fields_that_differ(prepared: Run) -> None:
    sentence = (
        r"run/tokenizer is out of date: `seed: 0 -> 99`, `model\.vocab_size: 400 -> 512`; `--remake tokenizer` makes "
        r"it again, and what follows from it, and `keylm run --from .*/run --run ANOTHER` keeps this run"
    )
    with pytest.raises(UserError, match=sentence):
        run_until(change(prepared, "seed=99", "model.vocab_size=512"), "prepare")


@pytest.mark.parametrize("override", ["seed=99", "sft.sources.talk.num_documents=7", "data.shard_tokens=7"])
def test_a_refused_command_writes_nothing(prepared: Run, override: str) -> None:
    before = contents(prepared.folder)
    for name in ("tokenizer", "prepare", "pretrain"):
        with pytest.raises(UserError, match="is out of date"):
            run_until(change(prepared, override), name)
    with pytest.raises(UserError, match="is out of date"):
        run_all(change(prepared, override))
    assert contents(prepared.folder) == before


def test_a_command_that_is_refused_in_a_new_folder_makes_none(tmp_path: Path) -> None:
    recipe = write_tiny_recipe(tmp_path)
    for arguments, sentence in (
        (("sft",), "`sft` needs `tokenizer` first"),
        (("dpo",), "has no `dpo`"),
        (("prepare", "sft"), "`keylm prepare` makes only `prepare`, use `keylm run .*/run --remake sft`"),
    ):
        with pytest.raises(UserError, match=sentence):
            run_until(open_run(recipe, folder=tmp_path / "run"), *arguments)
    with pytest.raises(UserError, match=r"--remake sftt: the stages of .* are tokenizer, prepare, pretrain, sft, eval"):
        run_all(open_run(recipe, folder=tmp_path / "run"), "sftt")
    assert not (tmp_path / "run").exists()


def test_a_later_stage_with_other_settings_is_not_left_behind(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"sft is out of date: `sft\.tokens: \d+ -> 1000`"):
        run_until(change(run, "sft.tokens=1000"), "pretrain")


def test_what_does_not_shape_a_stage_does_not_spoil_it(prepared: Run) -> None:
    changed = change(prepared, "train.tokens=1e6", "data.sources.prose.weight=3", "export.temperature=1")
    assert changed.is_done("tokenizer")
    assert changed.is_done("prepare")


def test_the_recipe_is_saved_when_a_stage_begins(prepared: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", change(prepared, "train.tokens=1e6").recipe)
    assert not run.folder.exists()
    run.begin("tokenizer")
    assert open_run(run.folder).recipe == run.recipe


def test_a_stage_that_left_nothing_is_begun_anew(prepared: Run, tmp_path: Path) -> None:
    create(prepared.recipe, tmp_path).begin("pretrain")
    (tmp_path / "pretrain" / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "pretrain" / "checkpoints").mkdir()
    mended = open_run(tmp_path, ["train.tokens=1000"])
    assert not mended.is_done("pretrain")
    (tmp_path / "pretrain" / "checkpoints" / "step-00000001").write_text("")
    with pytest.raises(UserError, match=r"`train\.tokens: 15360 -> 1000`"):
        mended.is_done("pretrain")


def test_a_run_of_an_earlier_version_is_compared_with_its_recipe(prepared: Run, tmp_path: Path) -> None:
    run = create(prepared.recipe, tmp_path)
    run.begin("tokenizer")
    run.finish("tokenizer", {})
    (tmp_path / "tokenizer" / "begun.json").write_text(json.dumps({"stage": "tokenizer", "fingerprint": "0123456789"}))
    assert open_run(tmp_path, ["train.tokens=1000"]).is_done("tokenizer")
    with pytest.raises(UserError, match=r"`model\.vocab_size: 400 -> 512`"):
        open_run(tmp_path, ["model.vocab_size=512"]).is_done("tokenizer")


def test_weights_are_those_that_the_stage_wrote(tmp_path: Path) -> None:
    run = create(made_up_run(tmp_path / "other").recipe, tmp_path / "run")
    with pytest.raises(UserError, match=r"run has no trained weights: run `keylm sft .*run` first"):
        run.verified_weights("sft")
    path = run.weights("sft")
    path.parent.mkdir(parents=True)
    save_file({"weight": torch.zeros(2)}, path)
    assert run.verified_weights("sft") == path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(KeyLMError, match=r"final/model\.safetensors is damaged .*not fully covered"):
        run.verified_weights("sft")
    path.write_bytes(whole)
    run.begin("sft")
    run.finish("sft", {})
    assert run.verified_weights("sft") == path
    path.write_bytes(whole[:-1] + b"1")
    with pytest.raises(KeyLMError, match=r"final/model\.safetensors is damaged .*delete .*/sft/stage\.json and run"):
        run.verified_weights("sft")


@pytest.mark.parametrize("name", ["begun.json", "stage.json"])
def test_a_damaged_record_costs_no_work(tiny_run: Run, name: str) -> None:
    vocabulary = tiny_run.stage("tokenizer") / "tokenizer.json"
    (tiny_run.stage("tokenizer") / name).write_text("{")
    with pytest.raises(UserError, match=rf"tokenizer/{name} is damaged: delete this file and run `keylm tokenizer"):
        run_until(tiny_run, "tokenizer")
    before = vocabulary.read_bytes()
    (tiny_run.stage("tokenizer") / name).unlink()
    run_until(tiny_run, "tokenizer")
    assert tiny_run.is_done("tokenizer")
    assert vocabulary.read_bytes() == before


def test_the_record_can_be_compared_after_it_was_written(prepared: Run) -> None:
    for stage in ("tokenizer", "prepare"):
        recorded = json.loads((prepared.stage(stage) / "begun.json").read_text())["settings"]
        assert recorded == stage_inputs(prepared.recipe)[stage]


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run: it has no recipe\.yaml"):
        open_run(tmp_path)
