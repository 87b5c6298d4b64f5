"""Recovery from kills, full disks, damaged files, other data, skipped steps and exhausted sources."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from helpers.processes import screen, start, train

from keylm.common.errors import KeyLMError, UserError
from keylm.model.initialization import init_model
from keylm.model.transformer import KeyLM
from keylm.run import Run, open_run
from keylm.stages import run_until
from keylm.train import stages
from keylm.train.metrics import read_metrics

OFTEN = "train.checkpoint_minutes=0.00001"


def rows(run: Run) -> list[dict]:
    return read_metrics(run.stage("pretrain") / "metrics.jsonl")


def measured(run: Run) -> list[dict]:
    """The metrics, without the clock and the memory."""
    noise = {"tokens_per_second", "mfu", "memory_bytes", "seconds"}
    return [{key: value for key, value in row.items() if key not in noise} for row in rows(run)]


def checkpoints(run: Run) -> list[Path]:
    return sorted(path for path in run.stage("pretrain").glob("checkpoints/step-*") if not path.suffix)


def copy(run: Run, folder: Path) -> Run:
    shutil.copytree(run.folder, folder)
    return open_run(folder)


def assert_equal(run: Run, calm: Run) -> None:
    """To the bit: weights, losses, norms, validations, in order and without a gap."""
    assert run.weights("pretrain").read_bytes() == calm.weights("pretrain").read_bytes()
    assert measured(run) == measured(calm)


@pytest.fixture(scope="module")
def calm(prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing disturbs."""
    run = copy(prepared, tmp_path_factory.mktemp("calm") / "run")
    train(run)
    return run


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_at_any_instant_changes_nothing(kills: int, calm: Run, tiny_run: Run, tmp_path: Path) -> None:
    """SIGKILL at random instants, with a checkpoint after every step: the end is that of a calm run, each time."""
    generator = random.Random(time.time_ns())
    run, killed, while_saving = tiny_run, 0, 0
    while killed < kills:
        [process] = start(run, 1, OFTEN)
        _wait_for_a_step(run, process)
        time.sleep(generator.uniform(0, 0.1))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
            while_saving += any(run.stage("pretrain").glob("checkpoints/*.partial"))
        else:
            assert_equal(run, calm)
            run = copy(calm, tmp_path / f"run-{killed}")
            shutil.rmtree(run.stage("pretrain"))
    train(run)
    assert_equal(run, calm)
    print(f"{while_saving} of {kills} kills came while a checkpoint was written")
    assert while_saving or kills < 100


def test_disk_full_while_saving_loses_nothing(calm: Run, tiny_run: Run) -> None:
    [process] = start(tiny_run, 1, OFTEN)
    _wait_for_steps(tiny_run, 4)
    _fill_disk(process.pid, 100_000)
    process.join()
    assert process.exitcode == 1
    assert "cannot save" in screen(tiny_run)
    assert "free some space and run the same command again; older checkpoints are intact" in screen(tiny_run)
    assert "Traceback" not in screen(tiny_run)
    assert not list(tiny_run.stage("pretrain").glob("checkpoints/*.partial"))
    train(tiny_run)
    assert "resuming from step" in screen(tiny_run)
    assert_equal(tiny_run, calm)


def test_disk_full_while_writing_metrics(calm: Run, tiny_run: Run) -> None:
    [process] = start(tiny_run)
    _wait_for_steps(tiny_run, 2)
    _fill_disk(process.pid, 1500)
    process.join()
    assert process.exitcode == 1
    assert "metrics.jsonl" in screen(tiny_run)
    assert "Traceback" not in screen(tiny_run)
    train(tiny_run)
    assert_equal(tiny_run, calm)


def test_sigterm_saves_within_ten_seconds(tiny_run: Run, tmp_path: Path) -> None:
    """In the middle of a step of 256 micro-batches, which is given up and done again."""
    overrides = ["train.batch_tokens=16384", "train.micro_batch_tokens=64", f"train.tokens={3 * 16384}"]
    calm = copy(tiny_run, tmp_path / "calm")
    train(calm, 1, *overrides)
    [process] = start(tiny_run, 1, *overrides)
    _wait_for_steps(tiny_run, 1)
    time.sleep(0.2)
    process.terminate()
    process.join(10)
    assert process.exitcode == 128 + signal.SIGTERM
    assert "stopped after step 1, saved: run the same command to resume" in screen(tiny_run)
    assert [path.name for path in checkpoints(tiny_run)] == ["step-00000001"]
    train(tiny_run, 1, *overrides)
    assert_equal(tiny_run, calm)


def test_damaged_checkpoint_falls_back_to_the_previous(
    calm: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _unfinished(copy(calm, tmp_path / "run"))
    _flip_a_byte(checkpoints(run)[-1] / "model.safetensors")
    run_until(run, "pretrain")
    line = " ".join(capsys.readouterr().err.split())
    assert "model.safetensors is damaged: renamed to step-00000030.damaged; using step-00000024 instead" in line
    assert_equal(run, calm)


@pytest.mark.parametrize("name", ["optimizer.safetensors", "state.json"])
def test_only_damaged_checkpoints_are_refused(name: str, calm: Run, tmp_path: Path) -> None:
    run = _unfinished(copy(calm, tmp_path / "run"))
    for path in checkpoints(run):
        _flip_a_byte(path / name) if name == "optimizer.safetensors" else (path / name).unlink()
    for _ in range(2):
        with pytest.raises(KeyLMError, match=rf"{name} is (damaged|missing), and there is no intact checkpoint before"):
            run_until(run, "pretrain")


def test_a_missing_shard_is_named(tiny_run: Run) -> None:
    [shard, *_] = sorted(tiny_run.folder.glob("prepare/pretrain/prose/train/*.tokens.npy"))
    shard.unlink()
    with pytest.raises(KeyLMError, match=shard.name):
        run_until(tiny_run, "pretrain")


def test_other_data_is_refused(calm: Run, tmp_path: Path) -> None:
    run = _unfinished(copy(calm, tmp_path / "run"))
    manifest = run.folder / "prepare/pretrain/prose/train/manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "fingerprint": "0" * 16}))
    with pytest.raises(UserError, match="was trained on other data"):
        run_until(run, "pretrain")


def test_resumed_run_skips_the_same_exploding_gradients(calm: Run, tiny_run: Run, tmp_path: Path) -> None:
    norms = sorted(row["grad_norm"] for row in rows(calm) if "loss" in row)
    overrides = [OFTEN, f"train.skip_grad_norm={norms[-4]}", "train.max_skipped_steps=30"]
    skipping = copy(tiny_run, tmp_path / "skipping")
    train(skipping, 1, *overrides)
    skips = [row for row in rows(skipping) if "skipped" in row]
    assert skips
    assert [row["skipped"] for row in skips] == list(range(1, len(skips) + 1))
    assert skipping.metadata("pretrain")["skipped_steps"] == len(skips)
    assert f"step {skips[0]['step'] - 1} is skipped (1 so far): loss" in screen(skipping)
    assert f"the batch begins at {skips[0]['batch']}" in screen(skipping)

    [process] = start(tiny_run, 1, *overrides)
    _wait_for_steps(tiny_run, skips[0]["step"] + 1)
    process.kill()
    process.join()
    train(tiny_run, 1, *overrides)
    assert_equal(tiny_run, skipping)


def test_too_many_skipped_steps_name_the_batch(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    create = init_model

    def broken(*arguments: object) -> KeyLM:
        model = create(*arguments)  # type: ignore[arg-type]
        model.model.norm.weight.data.fill_(float("nan"))
        return model

    monkeypatch.setattr(stages, "init_model", broken)
    stubborn = open_run(tiny_run.folder, ["train.max_skipped_steps=3"])
    with pytest.raises(
        KeyLMError, match=r"step 3 of pretrain: loss nan.*SequenceRef\(source=.*4 steps had to be skipped"
    ):
        run_until(stubborn, "pretrain")
    assert [row["skipped"] for row in rows(stubborn)] == [1, 2, 3, 4]


def test_exhausted_source_is_repeated(tiny_run: Run) -> None:
    train(tiny_run, 1, f"train.tokens={90 * 512}", "data.sources.prose.weight=9")
    assert "source prose is exhausted, and is repeated in another order" in screen(tiny_run)
    assert len([row for row in rows(tiny_run) if "loss" in row]) == 90
    share = tiny_run.metadata("pretrain")["mixture"]["prose"]
    assert share["realized"] == pytest.approx(share["requested"], abs=0.005)


def _unfinished(run: Run) -> Run:
    (run.stage("pretrain") / "stage.json").unlink()
    return run


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def _fill_disk(pid: int | None, size: int) -> None:
    """From now on the process cannot make a file longer than `size` bytes; the system refuses in mid-write."""
    assert pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))


def _wait_for_steps(run: Run, number: int) -> None:
    while len(rows(run)) < number:
        time.sleep(0.005)


def _wait_for_a_step(run: Run, process: ForkServerProcess) -> None:
    """Until the process has written a metric of its own, or has ended."""
    path = run.stage("pretrain") / "metrics.jsonl"
    while process.is_alive() and not _has_open(process, path):
        time.sleep(0.002)
    begun = path.stat().st_size
    while process.is_alive() and path.stat().st_size == begun:
        time.sleep(0.002)


def _has_open(process: ForkServerProcess, path: Path) -> bool:
    return any(_target(link) == path for link in Path(f"/proc/{process.pid}/fd").iterdir())


def _target(link: Path) -> Path | None:
    try:
        return link.readlink()
    except OSError:
        return None
