"""DPO: chosen answers gain on rejected ones, a stopped stage resumes, the loss is the expected one."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from keylm.stages import completed_training_stages, training_stages

pytest.importorskip("trl")

from keylm.common.errors import UserError
from keylm.instructions.task import assistant_message
from keylm.model.transformer import load_model, weight_shapes
from keylm.posttrain import dpo
from keylm.posttrain.preference_pairs import PreferencePair, make_pairs
from keylm.posttrain.trl_trainer import TrainingCallback
from keylm.recipe import load_recipe
from keylm.run import Run, open_run
from keylm.stages import run_until, stages_of
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import Tokenizer
from keylm.train import signals
from keylm.train.metrics import read_metrics

SETTINGS = [
    "dpo.num_pairs=24",
    "dpo.batch_pairs=8",
    "dpo.micro_batch_pairs=4",
    "dpo.learning_rate=3e-3",
    "sft.sequence_length=128",
]


def log_likelihood(run: Run, stage: str, pair: PreferencePair, answer: str) -> float:
    """Of what the assistant says, by our own model."""
    network = load_model(run.recipe.model, run.weights(stage))
    ids, _ = encode_messages(Tokenizer.load(run.stage("tokenizer")), [*pair.prompt, assistant_message(answer)])
    start = len(encode_messages(Tokenizer.load(run.stage("tokenizer")), pair.prompt, add_generation_prompt=True)[0])
    log_p = network.logits(torch.tensor([ids]))[0].log_softmax(-1)
    return sum(log_p[index - 1, ids[index]].item() for index in range(start, len(ids)))


def margin(run: Run, pair: PreferencePair) -> float:
    """Change of the chosen answer's log-odds against its twin."""
    chosen, rejected = (
        log_likelihood(run, "dpo", pair, answer) - log_likelihood(run, "sft", pair, answer)
        for answer in (pair.chosen, pair.rejected)
    )
    return chosen - rejected


def test_chosen_answers_gain_on_rejected_ones(run: Run) -> None:
    run = open_run(run.folder, ["dpo.num_pairs=192", "dpo.sft_weight=0", "dpo.learning_rate=1e-2"])
    run_until(run, "dpo")
    rows = read_metrics(run.stage("dpo") / "metrics.jsonl")
    assert [row["step"] for row in rows] == [*range(1, 25)]
    assert {name: tuple(part.shape) for name, part in load_file(run.weights("dpo")).items()} == weight_shapes(
        run.recipe.model
    )
    margins = [margin(run, pair) for pair in make_pairs(run, 192)]
    assert sum(value > 0 for value in margins) > 144
    assert completed_training_stages(run) == ["pretrain", "sft", "dpo"]
    assert run.metadata("dpo")["num_pairs"] == 192
    assert run.metadata("dpo")["tokens"] == rows[-1]["tokens"]


def test_first_loss_is_known(run: Run) -> None:
    """On weights that are still the reference's, DPO's loss is log 2; what is beside it is the chosen answers'."""
    run = open_run(run.folder, ["dpo.num_pairs=8", "dpo.sft_weight=0", "dpo.warmup_fraction=0"])
    run_until(run, "dpo")
    (first,) = read_metrics(run.stage("dpo") / "metrics.jsonl")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    with_sft = open_run(run.folder, ["dpo.sft_weight=2"], run.folder.with_name("other"))
    for stage in ("tokenizer", "prepare", "pretrain", "sft"):
        shutil.copytree(run.stage(stage), with_sft.stage(stage))
    run_until(with_sft, "dpo")
    (second,) = read_metrics(with_sft.stage("dpo") / "metrics.jsonl")
    parts = []
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    for pair in make_pairs(run, 8):
        ids = encode_messages(tokenizer, [*pair.prompt, assistant_message(pair.chosen)])[0]
        start = len(encode_messages(tokenizer, pair.prompt, add_generation_prompt=True)[0])
        parts.append((log_likelihood(run, "sft", pair, pair.chosen), len(ids) - start))
    assert second["loss"] - math.log(2) == pytest.approx(second_term(parts), rel=0.02)


def second_term(parts: list[tuple[float, int]]) -> float:
    """Twice the mean negative log-likelihood of a token."""
    return -2 * sum(log_p for log_p, _ in parts) / sum(count for _, count in parts)


def test_stopped_stage_resumes_to_the_same_weights(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run.folder, tmp_path / "calm")
    calm = open_run(tmp_path / "calm")
    run_until(calm, "dpo")

    ends = TrainingCallback.on_step_end

    def stop_after_two(
        callback: TrainingCallback, args: object, state: object, control: object, **rest: object
    ) -> None:
        if state.global_step == 2:
            callback.stop.ask(15, None)
        ends(callback, args, state, control, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingCallback, "on_step_end", stop_after_two)
        with pytest.raises(signals.TrainingStoppedError, match="stopped after step 2, saved") as stopped:
            run_until(run, "dpo")
    assert stopped.value.exit_code == 143
    (run.stage("dpo") / "checkpoints" / "checkpoint-9").mkdir()  # what a kill leaves half-written
    run_until(run, "dpo")
    rows, expected = read_metrics(run.stage("dpo") / "metrics.jsonl"), read_metrics(calm.stage("dpo") / "metrics.jsonl")
    keys = ("step", "tokens", "loss", "margin", "learning_rate")
    assert [[row[key] for key in keys] for row in rows] == [[row[key] for key in keys] for row in expected]
    assert run.weights("dpo").read_bytes() == calm.weights("dpo").read_bytes()


def test_recipe_without_the_section_skips_dpo(prepared: Run) -> None:
    assert "dpo" not in [stage.name for stage in stages_of(prepared)]
    assert training_stages(prepared)[-1] == "sft"
    with pytest.raises(UserError, match="has no `dpo`"):
        run_until(prepared, "dpo")


def test_pairs_need_a_source_with_verified_answers(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("{name: a, dpo: {}, sft: {sources: [{name: talk, type: files, path: talk.jsonl}]}}")
    with pytest.raises(UserError, match=r"dpo needs a source of type instructions or constrained-chat in sft\.sources"):
        load_recipe(path)
    path.write_text("{name: a, dpo: {batch_pairs: 10, micro_batch_pairs: 4}}")
    with pytest.raises(UserError, match="batch_pairs must be a multiple of micro_batch_pairs"):
        load_recipe(path)


def test_several_ranks_are_refused(tuned: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without torchrun"):
        dpo.run_dpo(tuned)
