"""`keylm run --more`: pretraining goes on from the last weights, in another run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.made_up_run import made_up_run
from safetensors.torch import load_file, save_file

from keylm.commands.lengthen import lengthen_training
from keylm.common.errors import UserError
from keylm.model.initialization import init_model
from keylm.recipe import Recipe
from keylm.run import IMPORTED, Run, open_run
from keylm.stages import run_until


def test_training_goes_on_from_the_last_weights(tiny_run: Run) -> None:
    """At a learning rate of almost zero they stay what they were: those of another seed than the recipe's."""
    source = open_run(tiny_run.folder, ["train.optimizer={type: adamw, learning_rate_scale: 1e-6}"])
    trained = init_model(source.recipe.model, 7).state_dict()
    source.begin("pretrain")
    source.weights("pretrain").parent.mkdir()
    save_file(trained, source.weights("pretrain"))
    source.finish("pretrain", {"tokens": 10_000, "training_seconds": 20})
    before = source.weights("pretrain").read_bytes()

    run = lengthen_training(source, "2s")
    assert run.folder == source.folder.with_name("run-more")
    assert run.recipe.train.tokens == 1000
    # The same command goes on.
    assert lengthen_training(source, "2s") == run
    run_until(run, "pretrain")
    for name, tensor in load_file(run.weights("pretrain")).items():
        torch.testing.assert_close(tensor, trained[name], atol=1e-3, rtol=1e-3)
    assert source.weights("pretrain").read_bytes() == before
    assert run.weights(IMPORTED).read_bytes() == before
    # The run knows all this itself.
    again = open_run(run.folder)
    assert again.is_done("pretrain")
    assert again.base_model is None
    assert again.earlier_trainings == [{"run": "run", "tokens": 10_000, "seconds": 20}]
    twice = lengthen_training(again, "1e6").earlier_trainings
    assert [earlier["run"] for earlier in twice] == ["run", "run-more"]


def test_imported_weights_stay_imported(tiny_run: Run) -> None:
    tiny_run.finish("tokenizer", {**tiny_run.metadata("tokenizer"), "imported": "someone/model"})
    run_until(tiny_run, "prepare")
    tiny_run.begin("pretrain")
    tiny_run.weights("pretrain").parent.mkdir()
    save_file(init_model(tiny_run.recipe.model, 7).state_dict(), tiny_run.weights("pretrain"))
    tiny_run.finish("pretrain", {"tokens": 10_000, "training_seconds": 20})
    run = lengthen_training(tiny_run, "2000")
    assert run.earlier_trainings == []
    assert run.base_model == str(tiny_run.folder)


def test_only_the_last_phase_is_kept(tmp_path: Path) -> None:
    phases = [{"until": 0.5, "weights": {"prose": 0}}, {"until": 1, "weights": {"talk": 3}}]
    source = made_up_run(tmp_path / "run", train={"phases": phases})
    run = lengthen_training(source, "2e6", tmp_path / "longer")
    assert [phase.weights for phase in run.recipe.train.phases] == [{"talk": 3}]
    assert run.recipe.train.tokens == 2_000_000
    assert Recipe.model_validate(run.recipe.model_dump()) == run.recipe
    assert not run.is_finished("pretrain")
    assert run.is_done("prepare")


@pytest.mark.parametrize("amount", ["", "many", "-3", "0", "inf", "nan", "3d", "30 m"])
def test_another_amount_is_refused(tmp_path: Path, amount: str) -> None:
    source = made_up_run(tmp_path / "run")
    with pytest.raises(UserError, match="write tokens, such as 2e6, or time, such as 90s, 30m or 2h"):
        lengthen_training(source, amount)
    with pytest.raises(UserError, match="name one with --run"):
        lengthen_training(source, "5", source.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
