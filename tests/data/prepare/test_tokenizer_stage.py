"""The tokenizer stage: who is sampled, how much, and from where."""

import json
import random
from collections import Counter

import pytest
from transformers import AutoTokenizer

from keylm import run as runs
from keylm.common.documents import Document, is_held_out
from keylm.common.errors import UserError
from keylm.data.prepare import tokenizer_stage
from keylm.data.prepare.tokenizer_stage import run_tokenizer
from keylm.recipe import Recipe
from keylm.tokenizer.tokenizer import Tokenizer


def sentences(letters, count):
    """Documents of about 100 bytes, in made-up words of these letters."""
    generator = random.Random(letters)
    words = ["".join(generator.choices(letters, k=generator.randint(2, 9))) for _ in range(500)]
    return [f"{number} " + " ".join(generator.choices(words, k=16)) for number in range(count)]


def make_run(folder, texts, sample_bytes, weights, vocab_size=500):
    for name, documents in texts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    sources = [
        {"name": name, "type": "files", "path": str(folder / f"{name}.jsonl"), "weight": weight}
        for name, weight in weights.items()
    ]
    values = {
        "name": "tiny",
        "model": {"vocab_size": vocab_size, "max_position_embeddings": 256},
        "tokenizer": {"sample_bytes": sample_bytes},
        "data": {"sources": sources, "validation_fraction": 0.2},
        "train": {"sequence_length": 256, "batch_tokens": 256, "micro_batch_tokens": 256},
        "sft": {"sequence_length": 256, "batch_tokens": 256, "micro_batch_tokens": 256},
    }
    run = runs.create(Recipe.model_validate(values), folder / "run")
    run.begin("tokenizer")
    return run


def sampled_texts(run, monkeypatch):
    """What the trainer is given; the training itself goes on as always."""
    seen = []
    train = tokenizer_stage.train_tokenizer

    def keep(texts, *settings):
        seen.extend(texts)
        return train(seen, *settings)

    monkeypatch.setattr(tokenizer_stage, "train_tokenizer", keep)
    return run_tokenizer(run), seen


def test_sources_are_sampled_by_weight(tmp_path):
    run = make_run(tmp_path, {"a": sentences("abc", 3000), "b": sentences("xyz", 3000)}, 100_000, {"a": 3.0, "b": 1.0})
    metadata = run_tokenizer(run)
    assert metadata["sampled_bytes"]["a"] == pytest.approx(75_000, rel=0.01)
    assert metadata["sampled_bytes"]["b"] == pytest.approx(25_000, rel=0.01)
    letters = Counter(token[-1] for token in Tokenizer.load(run.stage("tokenizer")).backend.get_vocab())
    assert letters["a"] + letters["b"] + letters["c"] > letters["x"] + letters["y"] + letters["z"] > 20


def test_files_are_sampled_evenly_without_validation(tmp_path, monkeypatch):
    documents = sentences("abcdef", 40_000)
    metadata, seen = sampled_texts(make_run(tmp_path, {"a": documents}, 200_000, {"a": 1.0}), monkeypatch)
    numbers = [int(text.split()[0]) for text in seen]
    assert metadata["sampled_bytes"] == {"a": sum(len(text) for text in seen)}
    assert numbers == sorted(numbers)
    assert max(numbers) > 0.7 * len(documents)
    assert not any(is_held_out(Document(text=text).digest, 0.2) for text in seen)


def test_a_small_source_gives_all_but_what_is_held_out(tmp_path, monkeypatch):
    documents = sentences("abcdef", 100)
    _, seen = sampled_texts(make_run(tmp_path, {"a": documents}, 10**8, {"a": 1.0}), monkeypatch)
    assert seen == [text for text in documents if not is_held_out(Document(text=text).digest, 0.2)]


def test_the_tokenizer_has_the_configured_size(tmp_path):
    run = make_run(tmp_path, {"a": sentences("abcdef", 500)}, 10**6, {"a": 1.0}, vocab_size=333)
    assert run_tokenizer(run)["vocab_size"] == 333
    loaded = AutoTokenizer.from_pretrained(run.stage("tokenizer"))
    assert (len(loaded), loaded.model_max_length) == (333, 256)


def test_the_same_text_gives_the_same_tokenizer(tmp_path):
    saved = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        run = make_run(tmp_path / name, {"a": sentences("abcdef", 500)}, 20_000, {"a": 1.0})
        run_tokenizer(run)
        saved.append((run.stage("tokenizer") / "tokenizer.json").read_bytes())
    assert saved[0] == saved[1]


def test_a_missing_source_is_one_sentence(tmp_path):
    run = make_run(tmp_path, {"a": ["some text"]}, 1000, {"a": 1.0})
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(UserError, match=r"a\.jsonl` matches no file"):
        run_tokenizer(run)
