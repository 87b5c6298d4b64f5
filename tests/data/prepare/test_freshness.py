"""Changed text and mended recipes: what is noticed, what is kept, and what is made again."""

import json
import os
import shutil

import pytest
import yaml

from keylm.common.errors import KeyLMError, UserError
from keylm.data.prepare.token_store import TokenStore
from keylm.run import open_run
from keylm.stages import run_until
from keylm.tokenizer.training import train_tokenizer

TEXT = "the river runs under an old stone bridge and nobody has ever counted its seven quiet arches"
WORDS = TEXT.split()


def write_texts(path, number, offset=0):
    """A file of `number` different documents."""
    rows = [{"text": " ".join(WORDS[(offset + row + step) % len(WORDS)] for step in range(20)) + f" {offset + row}"}
            for row in range(number)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_talks(path, number):
    answers = [" ".join(WORDS[row % 16 :] + WORDS[: row % 16]) + f" {row}" for row in range(number)]
    rows = [
        {"messages": [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": answer}]}
        for answer in answers
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A recipe with a tokenizer, two sources of text and one of conversations."""
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "a.jsonl", 40)
    (tmp_path / "more").mkdir()
    write_texts(tmp_path / "more" / "b.jsonl", 40, offset=100)
    write_talks(tmp_path / "talk.jsonl", 40)
    values = {
        "name": "tiny",
        "model": {"vocab_size": 290, "max_position_embeddings": 512},
        "data": {
            "validation_fraction": 0.1,
            "min_document_bytes": 20,
            "sources": [
                {"name": "a", "type": "files", "path": "a.jsonl"},
                {"name": "more", "type": "files", "path": "more"},
            ],
        },
        "train": {"sequence_length": 64, "batch_tokens": 128, "micro_batch_tokens": 128, "tokens": 128},
        "sft": {
            "sources": [{"name": "talk", "type": "files", "path": "talk.jsonl"}],
            **{"sequence_length": 64, "batch_tokens": 128, "micro_batch_tokens": 128, "tokens": 128},
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    run = open_run(tmp_path / "recipe.yaml", folder=tmp_path / "run")
    run.begin("tokenizer")
    train_tokenizer([TEXT] * 3, 290, "qwen2").save(run.stage("tokenizer"), 512)
    run.finish("tokenizer", {})
    return tmp_path


def prepare(folder, *overrides, remake=False):
    run = open_run(folder / "recipe.yaml", list(overrides), folder / "run")
    run_until(run, "prepare", "prepare" if remake else None)
    return run


def pretend(run, *stages):
    """Mark later stages as done."""
    for stage in stages:
        run.begin(stage)
        run.finish(stage, {})


def done(run):
    return [stage for stage in ("tokenizer", "prepare", "pretrain", "sft", "eval", "export") if run.is_finished(stage)]


def times(run, name):
    return {path: path.stat().st_mtime_ns for path in (run.stage("prepare")).glob(f"*/{name}/**/*.npy")}


def test_the_manifest_knows_its_files(folder):
    run = prepare(folder)
    files = json.loads((run.stage("prepare") / "pretrain" / "a" / "manifest.json").read_text())["files"]
    assert list(files) == ["a.jsonl"]
    assert files["a.jsonl"]["size"] == (folder / "a.jsonl").stat().st_size
    assert files["a.jsonl"]["mtime_ns"] == (folder / "a.jsonl").stat().st_mtime_ns
    assert len(files["a.jsonl"]["sha256"]) == 64
    assert "files" not in run.metadata("prepare")["pretrain"]["a"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda folder: write_texts(folder / "a.jsonl", 60),
            "the text of `a` changed since it was prepared (changed: a.jsonl)",
        ),
        (
            lambda folder: write_texts(folder / "more" / "c.jsonl", 5, 500),
            "`more` changed since it was prepared (new: more/c.jsonl)",
        ),
        (
            lambda folder: (folder / "more" / "b.jsonl").rename(folder / "more" / "c.jsonl"),
            "`more` changed since it was prepared (new: more/c.jsonl; gone: more/b.jsonl)",
        ),
        (
            lambda folder: write_talks(folder / "talk.jsonl", 41),
            "`talk` changed since it was prepared (changed: talk.jsonl)",
        ),
    ],
    ids=["changed", "added", "renamed", "of SFT"],
)
def test_changed_text_is_noticed(folder, change, sentence, capsys):
    prepare(folder)
    change(folder)
    prepare(folder)
    shown = " ".join(capsys.readouterr().err.split())
    assert sentence in shown
    assert "run --remake prepare` takes in the new one" in shown


def test_text_that_is_the_same_is_not_reported(folder, capsys):
    prepare(folder)
    capsys.readouterr()
    shutil.copy(folder / "a.jsonl", folder / "copy")
    (folder / "copy").replace(folder / "a.jsonl")
    os.utime(folder / "more" / "b.jsonl", (1, 1))
    # What is prepared does not need its text any more.
    (folder / "talk.jsonl").unlink()
    prepare(folder)
    assert "changed" not in capsys.readouterr().err


def test_the_same_size_and_other_text_is_noticed(folder, capsys):
    prepare(folder)
    path = folder / "a.jsonl"
    path.write_text(path.read_text().replace("river", "liver"))
    prepare(folder)
    assert "(changed: a.jsonl)" in capsys.readouterr().err


def test_the_text_of_a_source_inside_another_one_is_noticed(folder, capsys):
    inner = "{name: x, type: files, path: talk.jsonl}"
    talk = f"sft.sources=[{{name: talk, type: constrained-chat, from_source: {inner}}}]"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Tell me about bridge number {number} of the old town."},
                {
                    "role": "assistant",
                    "content": f"The old bridge {number} is quiet. It has an arch. Nobody counts it.",
                },
            ]
        }
        for number in range(60)
    ]
    # Some requests under constraints take more tokens than the other tests' sequences have.
    fields = ("sequence_length", "micro_batch_tokens", "batch_tokens")
    lengths = ["model.max_position_embeddings=1024", *(f"sft.{field}=1024" for field in fields)]
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(folder, talk, *lengths)
    with (folder / "talk.jsonl").open("a") as file:
        file.write("\n")
    prepare(folder, talk, *lengths)
    assert "`talk` changed since it was prepared (changed: talk.jsonl)" in " ".join(capsys.readouterr().err.split())


def test_remake_takes_in_the_new_text_and_what_follows(folder):
    run = prepare(folder)
    pretend(run, "pretrain", "sft", "eval", "export")
    kept = times(run, "a")
    write_texts(folder / "more" / "c.jsonl", 30, offset=500)
    run = prepare(folder, remake=True)
    assert done(run) == ["tokenizer", "prepare"]
    assert not run.stage("export").exists()
    source = run.metadata("prepare")["pretrain"]["more"]
    assert source["train"]["documents"] + source["validation"]["documents"] == 70
    assert times(run, "a") == kept
    assert times(run, "talk")


def test_remake_of_conversations_keeps_pretraining(folder):
    run = prepare(folder)
    pretend(run, "pretrain", "sft", "eval", "export")
    kept = times(run, "a") | times(run, "more")
    write_talks(folder / "other.jsonl", 20)
    other = "sft.sources.talk.path=other.jsonl"
    with pytest.raises(UserError, match=r'`sft\.sources\.talk\.path: "talk\.jsonl" -> "other\.jsonl"`; `--remake'):
        prepare(folder, other)
    run = prepare(folder, other, remake=True)
    assert done(run) == ["tokenizer", "prepare", "pretrain"]
    assert times(run, "a") | times(run, "more") == kept
    assert run.metadata("prepare")["sft"]["talk"]["train"]["documents"] < 21


def test_remake_of_what_is_up_to_date_makes_everything_again(folder):
    run = prepare(folder)
    pretend(run, "pretrain", "sft")
    before, fingerprint = times(run, "a"), run.metadata("prepare")["fingerprint"]
    run = prepare(folder, remake=True)
    assert done(run) == ["tokenizer", "prepare"]
    assert times(run, "a").keys() == before.keys()
    assert times(run, "a") != before
    assert run.metadata("prepare")["fingerprint"] == fingerprint


@pytest.mark.parametrize("name", ["manifest.json", "begun.json"])
def test_the_advice_for_a_damaged_record_works(folder, name):
    run = prepare(folder)
    fingerprint, kept = run.metadata("prepare")["fingerprint"], times(run, "more")
    (run.stage("prepare") / "pretrain" / "a" / name).write_text('{"cut')
    with pytest.raises(KeyLMError, match=rf"{name} is damaged.*: run `keylm prepare` with `--remake prepare`"):
        prepare(folder)
    run = prepare(folder, remake=True)
    assert run.metadata("prepare")["fingerprint"] == fingerprint
    assert times(run, "more") == kept


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "manifest"])
def test_the_advice_for_a_damaged_shard_works(folder, damage):
    run = prepare(folder)
    pretend(run, "pretrain")
    store, fingerprint = run.stage("prepare") / "pretrain" / "a" / "train", run.metadata("prepare")["fingerprint"]
    path = store / ("manifest.json" if damage == "manifest" else "shard-00000.tokens.npy")
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage == "flipped" else data[: len(data) // 2])
    kept = times(run, "more")
    with pytest.raises(KeyLMError, match=r"is damaged .*: run `keylm prepare` with `--remake prepare`"):
        TokenStore(store)
    run = prepare(folder, remake=True)
    TokenStore(store).verify()
    assert run.metadata("prepare")["fingerprint"] == fingerprint
    assert times(run, "more") == kept
    # The same bytes again: what was trained on them stays.
    assert done(run) == ["tokenizer", "prepare", "pretrain"]


def test_a_source_that_left_no_tokens_is_mended_while_others_are_kept(folder):
    (folder / "bad.jsonl").write_text('{"bod": "x"}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl, line 1"):
        prepare(folder, "sft.sources.talk.path=bad.jsonl")
    run = open_run(folder / "run")
    kept = times(run, "a") | times(run, "more")
    run = prepare(folder)
    assert done(run) == ["tokenizer", "prepare"]
    assert times(run, "a") | times(run, "more") == kept
    assert open_run(run.folder).recipe == run.recipe


def test_tokens_of_other_settings_are_refused_before_anything_is_written(folder):
    (folder / "bad.jsonl").write_text('{"bod": "x"}\n')
    bad = "sft.sources.talk.path=bad.jsonl"
    with pytest.raises(UserError, match=r"bad\.jsonl, line 1"):
        prepare(folder, bad)
    before = (folder / "run" / "recipe.yaml").read_bytes()
    mended = ["data.shard_tokens=9", bad]
    with pytest.raises(UserError, match="pretrain/a is out of date"):
        prepare(folder, *mended)
    assert (folder / "run" / "recipe.yaml").read_bytes() == before
    with pytest.raises(UserError, match=r"bad\.jsonl, line 1"):
        prepare(folder, *mended, remake=True)
    assert len(list((folder / "run").glob("prepare/pretrain/a/train/*.tokens.npy"))) > 3


@pytest.mark.parametrize("tasks", [2, 3])
def test_a_recipe_is_mended_between_tasks(folder, tasks):
    expected = prepare(folder).metadata("prepare")["fingerprint"]
    shutil.rmtree(folder / "run" / "prepare")
    (folder / "bad.jsonl").write_text('{"bod": "x"}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl, line 1"):
        prepare(folder, "sft.sources.talk.path=bad.jsonl", "prepare.tasks=2")
    run = prepare(folder, f"prepare.tasks={tasks}")
    assert run.metadata("prepare")["fingerprint"] == expected
