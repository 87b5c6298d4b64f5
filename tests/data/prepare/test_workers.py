"""Prepare divided into tasks: the store is the same, whoever encodes it, and however often that is stopped."""

import json
import os
import random
import sys

import pytest
import yaml

from keylm.common.errors import MissingSourceError, UserError
from keylm.common.files import read_json
from keylm.data.prepare.stage import SPLITS, run_prepare
from keylm.data.prepare.token_store import TokenStore
from keylm.run import open_run
from keylm.tokenizer.training import train_tokenizer

WORDS = "the river runs under an old stone bridge and nobody has ever counted its seven quiet arches".split()  # noqa: SIM905
FAKE_SBATCH = """#!/usr/bin/env python3
# Runs the array of a Slurm script at once, task after task, as the queue would in its own time.
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
first, last = re.search(r"--array=(\\d+)-(\\d+)", script).groups() if "--array" in script else ("0", "-1")
for task in range(int(first), int(last) + 1):
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "RUN_OFFSET": "0", "SLURM_NODELIST": "here"}
    subprocess.run(["bash", sys.argv[-1]], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job 7")
"""
FAKE_SCONTROL = "#!/usr/bin/env bash\necho 127.0.0.1\n"
FAKE_SRUN = (
    '#!/usr/bin/env bash\nwhile [[ "$1" == -* ]]; do if [[ "$1" == -n ]]; then shift; fi; shift; done\nexec "$@"\n'
)


def rows(folder, name, texts):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def make_run(folder, text=(), clean=(), **settings):
    """A run over two folders of files, some of whose documents come twice in one or in both, and generated talk.

    `text` changes the first source, `clean` the cleaning, `settings` are those of the stage.
    """
    generator = random.Random(0)
    texts = [" ".join(generator.choices(WORDS, k=40)).capitalize() + "." for _ in range(230)]
    for number in range(5):
        rows(folder / "text", f"{number}.jsonl", [*texts[40 * number : 40 * number + 40], texts[number], "Short."])
    rows(folder / "more", "0.jsonl", texts[180:])
    talk = {"name": "talk", "type": "instructions", "num_documents": 20}
    values = {
        "name": "tiny",
        "data": {
            "validation_fraction": 0.1,
            "shard_tokens": 1000,
            "clean": dict(clean),
            "sources": [
                {"name": "text", "type": "files", "path": str(folder / "text"), **dict(text)},
                {"name": "more", "type": "files", "path": str(folder / "more")},
                talk,
            ],
        },
        "sft": {"sources": [talk]},
        "prepare": settings,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    run = open_run(folder / "recipe.yaml", folder=folder / "run")
    train_tokenizer([" ".join(WORDS)] * 3, 290, "qwen2").save(run.stage("tokenizer"), 512)
    run.begin("prepare")
    return run


def stores(run):
    """Every byte that was written, but for the paths of the sources' files."""
    folder = run.stage("prepare")
    arrays = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.npy")}
    dropped = {str(path.relative_to(folder)): read_json(path) for path in folder.rglob("dropped.json")}
    return arrays, dropped


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("whole"))
    run_prepare(run)
    return run


def test_documents_are_freed_of_what_any_source_before_had(whole):
    metadata = {
        path.parent.name: read_json(path) for path in (whole.stage("prepare") / "pretrain").glob("*/manifest.json")
    }
    assert metadata["text"]["dropped"] == {"duplicate": 5, "too short": 5}
    assert metadata["more"]["dropped"] == {"duplicate": 20}
    assert metadata["more"]["train"]["documents"] + metadata["more"]["validation"]["documents"] == 30


@pytest.mark.parametrize("settings", [{"tasks": 3}, {"tasks": 8}, {"tasks": 2, "workers": 2}], ids=str)
def test_any_number_of_tasks_writes_the_same_stores(whole, tmp_path, settings):
    run = make_run(tmp_path, **settings)
    run_prepare(run)
    assert stores(run) == stores(whole)
    assert not (run.stage("prepare") / "tasks").exists()


def test_a_stopped_task_continues_and_others_are_kept(whole, tmp_path):
    run = make_run(tmp_path, tasks=5)
    damaged = tmp_path / "text" / "3.jsonl"
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-100] + b'{"text"\n')
    with pytest.raises(UserError, match=r"3\.jsonl, line 4\d: this is not JSON"):
        run_prepare(run)
    kept = {path: path.stat().st_mtime_ns for path in (run.stage("prepare") / "tasks").rglob("*.tokens.npy")}
    assert kept
    damaged.write_bytes(good)
    run_prepare(run)
    assert stores(run) == stores(whole)


@pytest.mark.slow
def test_ray_on_one_machine_writes_the_same_stores(whole, tmp_path):
    ray = pytest.importorskip("ray")
    run = make_run(tmp_path, executor="ray", tasks=3, workers=2)
    try:
        run_prepare(run)
    finally:
        ray.shutdown()
    assert stores(run) == stores(whole)


def test_slurm_queues_tasks_and_then_merges_them(whole, tmp_path, monkeypatch):
    for name, text in (("sbatch", FAKE_SBATCH), ("srun", FAKE_SRUN), ("scontrol", FAKE_SCONTROL)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}")  # noqa: PTH120
    run = make_run(tmp_path, executor="slurm", tasks=2, slurm={"partition": "cpu", "time": "01:00:00"})
    run_prepare(run)
    assert stores(run) == stores(whole)


@pytest.mark.parametrize("num_tasks", [1, 2])
def test_a_missing_source_may_be_left_out(tmp_path, num_tasks):
    gone = {"path": str(tmp_path / "nowhere"), "on_missing": "redistribute"}
    run = make_run(tmp_path, text=gone, tasks=num_tasks)
    metadata = run_prepare(run)
    assert "nowhere` matches no file" in metadata["pretrain"]["text"]["missing"]
    assert (
        metadata["pretrain"]["more"]["train"]["documents"] + metadata["pretrain"]["more"]["validation"]["documents"]
        == 50
    )
    assert run_prepare(run) == metadata


def test_a_missing_source_stops_the_stage_by_default(tmp_path):
    with pytest.raises(MissingSourceError, match="nowhere` matches no file"):
        run_prepare(make_run(tmp_path, text={"path": str(tmp_path / "nowhere")}))


def test_reading_stops_when_so_many_bytes_are_kept(whole, tmp_path):
    metadata = run_prepare(make_run(tmp_path, text={"max_bytes": 5000}))["pretrain"]
    kept = sum(metadata["text"][split]["bytes"] for split in SPLITS)
    assert 5000 <= kept < 5500
    limited = TokenStore(tmp_path / "run" / "prepare" / "pretrain" / "text" / "train").document_digests
    everything = TokenStore(whole.stage("prepare") / "pretrain" / "text" / "train").document_digests
    assert limited.tolist() == everything[: len(limited)].tolist()


@pytest.mark.parametrize("num_tasks", [1, 3])
def test_near_duplicates_are_dropped_over_all_sources(tmp_path, num_tasks):
    run = make_run(tmp_path, clean={"near_duplicates": True}, tasks=num_tasks)
    generator = random.Random(1)
    words = ["".join(generator.choices("abcdefghij", k=6)) for _ in range(200)]
    nearly = [*words[:150], "changed", *words[151:]]
    rows(tmp_path / "text", "near.jsonl", [" ".join(words)])
    rows(tmp_path / "more", "near.jsonl", [" ".join(nearly), " ".join(reversed(words))])
    metadata = run_prepare(run)["pretrain"]
    dropped = [metadata[name]["dropped"].get("near duplicate", 0) for name in ("text", "more")]
    assert sum(dropped) == 1


def test_slurm_asks_for_what_it_needs(tmp_path):
    with pytest.raises(UserError, match=r"prepare\.slurm must name a `partition` and a `time`"):
        run_prepare(make_run(tmp_path, executor="slurm", tasks=2))
