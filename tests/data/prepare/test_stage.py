"""The prepare stage: what is stored is what was read, whatever happens on the way."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import yaml

from keylm.common.documents import Document, is_held_out
from keylm.common.errors import UserError
from keylm.data.cleaning.cleaner import Cleaner
from keylm.data.loading.packing import PackedSequences
from keylm.data.prepare.stage import run_prepare
from keylm.data.prepare.token_store import TokenStore
from keylm.data.sources.parents import ParentSources
from keylm.data.sources.registry import read_source
from keylm.run import open_run
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import Tokenizer
from keylm.tokenizer.training import train_tokenizer

TEXT = "the river runs under an old stone bridge and nobody has ever counted its seven quiet arches"
PREPARE = """
import sys
from pathlib import Path
from keylm.data.prepare.stage import run_prepare
from keylm.run import open_run
print(run_prepare(open_run(Path(sys.argv[1])))["fingerprint"])
"""


def sentence(generator, words=40):
    return " ".join(generator.choices(TEXT.split(), k=words)).capitalize() + "."


def conversation(generator):
    return [
        {"role": "user", "content": sentence(generator, 6)},
        {"role": "assistant", "content": sentence(generator, 12)},
    ]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def make_run(folder, pretrain, sft, shard_tokens=2000):
    """A run with a trained tokenizer and one source of rows for each part."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {"validation_fraction": 0.1, "min_document_bytes": 20, "shard_tokens": shard_tokens}
    values = {
        "name": "tiny",
        "data": {
            **data,
            "sources": [{"name": "rows", "type": "files", "path": write_rows(folder / "a.jsonl", pretrain)}],
        },
        "sft": {"sources": [{"name": "talk", "type": "files", "path": write_rows(folder / "b.jsonl", sft)}]},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    run = open_run(folder / "recipe.yaml", folder=folder / "run")
    train_tokenizer([TEXT] * 3, 290, "qwen2").save(run.stage("tokenizer"), 512)
    run.begin("prepare")
    return run


def contents(run):
    folder = run.stage("prepare")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def stored(run, stage, name, split):
    """Ids and mask of every document of a store."""
    store = TokenStore(run.stage("prepare") / stage / name / split)
    store.verify()
    spans = zip([0, *store.document_ends[:-1].tolist()], store.document_ends.tolist(), strict=False)
    return [(store.tokens(*span).tolist(), store.loss_mask(*span).tolist()) for span in spans]


@pytest.fixture(scope="module")
def rows():
    generator = random.Random(0)
    texts = [{"text": sentence(generator)} for _ in range(300)]
    talks = [{"messages": conversation(generator)} for _ in range(100)]
    return generator.sample(
        [*texts, *texts[:20], *talks, *talks[:5], {"text": "Short."}, {"text": "12.5 7.4 " * 9}], 427
    )


@pytest.fixture(scope="module")
def run(rows, tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("prepare"), rows, [row for row in rows if "messages" in row])
    run.finish("prepare", run_prepare(run))
    return run


def test_every_document_is_stored_once_in_its_split(run, rows):
    trained = Tokenizer.load(run.stage("tokenizer"))
    expected = {"train": [], "validation": []}
    for row in {json.dumps(row): row for row in rows}.values():
        if len(row.get("text", "a conversation, long enough")) < 20 or row.get("text", "").startswith("12.5"):
            continue
        messages = row.get("messages")
        document = Document(text=row.get("text"), messages=messages and tuple(messages))
        ids = encode_messages(trained, messages)[0] if messages else trained.encode(row["text"])
        split = "validation" if is_held_out(document.digest, 0.1) else "train"
        expected[split].append(([*ids, trained.end_of_text], [True] * (len(ids) + 1)))
    assert len(expected["validation"]) > 10
    for split in ("train", "validation"):
        assert stored(run, "pretrain", "rows", split) == expected[split]


def test_the_loss_mask_covers_the_assistant_s_turns(run):
    trained = Tokenizer.load(run.stage("tokenizer"))
    documents = stored(run, "sft", "talk", "train")
    assert 70 <= len(documents) <= 99
    for ids, loss_mask in documents:
        answer = trained.decode(np.array(ids)[np.array(loss_mask)].tolist(), keep_control=True)
        shown = trained.decode(ids, keep_control=True)
        assert shown.endswith(f"<|im_start|>assistant\n{answer}\n<|endoftext|>")
        assert answer.endswith(".<|im_end|>")


def test_metadata_counts_what_was_kept_and_dropped(run):
    metadata = run.metadata("prepare")
    rows, talk = metadata["pretrain"]["rows"], metadata["sft"]["talk"]
    assert rows["dropped"] == {"duplicate": 25, "not text": 1, "too short": 1}
    assert talk["dropped"] == {"duplicate": 5}
    assert rows["train"]["documents"] + rows["validation"]["documents"] == 400
    store = TokenStore(run.stage("prepare") / "pretrain" / "rows" / "train")
    assert rows["train"]["tokens"] == store.num_tokens
    assert rows["train"]["bytes"] == store.document_bytes.sum()
    assert len(store.shards) > 3


def test_what_is_prepared_is_not_prepared_again(run):
    before = contents(run)
    metadata = {key: value for key, value in run.metadata("prepare").items() if key != "stage"}
    assert run_prepare(run) == metadata
    assert contents(run) == before


def test_the_number_of_threads_does_not_change_a_byte(run, tmp_path, rows):
    again = make_run(tmp_path, rows, [row for row in rows if "messages" in row])
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": "3"}
    command = [sys.executable, "-c", PREPARE, str(again.folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == run.metadata("prepare")["fingerprint"]
    assert done.stderr.count("prepare ") <= 4, "a bar is drawn once where nobody watches"


def test_killed_at_any_time_it_goes_on_to_the_same_bytes(tmp_path):
    generator = random.Random(1)
    texts = [{"text": sentence(generator, 200)} for _ in range(4000)]
    talks = [{"messages": conversation(generator)} for _ in range(2000)]
    killed = make_run(tmp_path / "killed", texts, talks, shard_tokens=100_000)
    for part, shard in (("pretrain/rows", 1), ("pretrain/rows", 5), ("sft/talk", 0)):
        _kill_at(killed, f"{part}/train/shard-{shard:05d}.tokens.npy")
    assert not (killed.stage("prepare") / "sft" / "talk" / "manifest.json").exists()
    killed_metadata = run_prepare(killed)
    whole = make_run(tmp_path / "whole", texts, talks, shard_tokens=100_000)
    assert run_prepare(whole)["fingerprint"] == killed_metadata["fingerprint"]
    assert _stores(whole) == _stores(killed)


def _kill_at(run, shard):
    """Prepare in another process, which is killed as soon as this file appears."""
    process = subprocess.Popen([sys.executable, "-c", PREPARE, str(run.folder)], stderr=subprocess.DEVNULL)
    while not (run.stage("prepare") / shard).exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _stores(run):
    return {name: data for name, data in contents(run).items() if "/train/" in name or "/validation/" in name}


@pytest.mark.parametrize("change", [lambda texts: texts[1:], lambda texts: texts[:50]], ids=["shifted", "cut off"])
def test_a_source_that_changed_meanwhile_is_refused(tmp_path, change):
    generator = random.Random(2)
    texts = [{"text": sentence(generator, 200)} for _ in range(2000)]
    run = make_run(tmp_path, [*texts, {"text": 7}], [], shard_tokens=50_000)
    with pytest.raises(UserError, match="line 2001: `text` is not text"):
        run_prepare(run)
    write_rows(tmp_path / "a.jsonl", change(texts))
    with pytest.raises(UserError, match=r"for .*rows/train are not those of before the stop: .*prepares rows again"):
        run_prepare(run)


@pytest.mark.parametrize(
    ("pretrain", "sft", "sentence"),
    [
        ([], [], r"the source `rows` gives nothing to train on \(it has no documents\)"),
        ([{"text": "Hm."}], [], r"the source `rows` gives nothing to train on \(left out: 1 too short\)"),
        ([{"text": TEXT}], [{"text": TEXT}], "the source `talk` of sft.sources holds plain text"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_sentence(tmp_path, pretrain, sft, sentence):
    run = make_run(tmp_path, pretrain, sft)
    with pytest.raises(UserError, match=sentence):
        run_prepare(run)


def test_a_source_of_few_documents_has_both_splits_and_says_so(tmp_path, capsys):
    generator = random.Random(5)
    texts = [{"text": sentence(generator)} for _ in range(2)]
    run = make_run(tmp_path, texts, [{"messages": conversation(generator)} for _ in range(3)])
    metadata = run_prepare(run)
    assert (
        metadata["pretrain"]["rows"]["train"]["documents"]
        == metadata["pretrain"]["rows"]["validation"]["documents"]
        == 1
    )
    assert metadata["sft"]["talk"]["validation"]["documents"] == 1
    rows = next(line for line in capsys.readouterr().err.splitlines() if line.split()[:1] == ["rows"])
    assert rows.split()[1] == rows.split()[3] == "1"


def test_what_is_left_out_is_counted_and_shown(tmp_path, capsys):
    generator = random.Random(6)
    talks = [{"messages": conversation(generator)} for _ in range(9)]
    tool = {"messages": [*conversation(generator), {"role": "tool", "content": "42"}]}
    run = make_run(tmp_path, [{"text": sentence(generator)} for _ in range(9)], [*talks, tool, tool])
    assert run_prepare(run)["sft"]["talk"]["dropped"] == {"tool call": 2}
    assert "2 tool call" in capsys.readouterr().err
    samples = json.loads((run.stage("prepare") / "sft" / "talk" / "dropped.json").read_text())["samples"]
    assert "line 10, message 3" in samples["tool call"][0]


def test_conversations_longer_than_a_sequence_are_counted(tmp_path, capsys):
    generator = random.Random(7)
    short = [{"messages": conversation(generator)} for _ in range(20)]
    long = [
        {"messages": [{"role": "user", "content": sentence(generator, 3_000)}, *conversation(generator)[1:]]}
        for _ in range(20)
    ]
    run = make_run(tmp_path / "half", [{"text": sentence(generator)} for _ in range(9)], [*short, *long])
    counts = run_prepare(run)["sft"]["talk"]["long_conversations"]
    sequences = PackedSequences(TokenStore(run.stage("prepare") / "sft" / "talk" / "train"), 1024, conversations=True)
    assert counts == {"left_out": sequences.num_skipped, "cut": 0}
    assert 10 <= counts["left_out"] <= 20
    assert "do not come to an answer within sft.sequence_length (1,024 tokens)" in capsys.readouterr().err
    run = make_run(tmp_path / "all", [{"text": sentence(generator)} for _ in range(9)], long)
    with pytest.raises(UserError, match=r"no conversation of `talk` comes to .* within sft\.sequence_length \(1,024"):
        run_prepare(run)


def test_plain_text_in_sft_names_its_file(tmp_path):
    generator = random.Random(8)
    texts = [{"text": sentence(generator)} for _ in range(9)]
    run = make_run(tmp_path, texts, texts)
    with pytest.raises(UserError, match=r"`talk` of sft\.sources holds plain text \(.*b\.jsonl\)"):
        run_prepare(run)


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_sources_own_validation_files_are_held_out_and_nothing_else(tmp_path, tasks):
    generator = random.Random(11)
    own, both, other = ([sentence(generator) for _ in range(count)] for count in (8, 2, 60))
    folder = tmp_path / "data"
    folder.mkdir()
    write_rows(folder / "z.jsonl", [{"text": text} for text in [*own, *both]])
    write_rows(folder / "a.jsonl", [{"text": text} for text in [*both, *other]])
    run = make_run(tmp_path, [{"text": TEXT}], [{"messages": conversation(generator)} for _ in range(3)])
    changes = [
        f"data.sources.rows.path={folder}",
        f"data.sources.rows.validation_path={folder / 'z.jsonl'}",
        "data.min_document_bytes=1",
        f"prepare.tasks={tasks}",
    ]
    run = open_run(tmp_path / "recipe.yaml", changes, run.folder)
    run_prepare(run)
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    texts = {
        split: {tokenizer.decode(ids) for ids, _ in stored(run, "pretrain", "rows", split)}
        for split in ("train", "validation")
    }
    assert texts == {"train": set(other), "validation": {*own, *both}}
    # What is made from the source must not know its validation text either.
    [rows] = run.recipe.data.sources
    parents = ParentSources([rows], partial(Cleaner, run), run.recipe.data.validation_fraction)
    used = parents.training_documents(rows, read_source(rows, 0))
    assert {document.text for document in used} == set(other)


def test_validation_files_of_an_inner_source_are_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    inner = {"name": "in", "type": "files", "path": "a.jsonl", "validation_path": "b.jsonl"}
    source = {"name": "out", "type": "backtranslation", "from_source": inner}
    path.write_text(yaml.safe_dump({"name": "tiny", "sft": {"sources": [source]}}))
    with pytest.raises(UserError, match="validation_path is only for a source of its own"):
        open_run(path)
