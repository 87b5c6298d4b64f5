"""Answers by llama.cpp, held against our own decoder and transformers' on the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny_run import tiny_run

from keylm import chat
from keylm import model as models
from keylm.data.instructions import held_out
from keylm.errors import KeyLMError
from keylm.evaluate import llama_writer
from keylm.evaluate.llama_writer import LlamaWriter
from keylm.evaluate.lm_tasks import load_model
from keylm.generate import generate
from keylm.run import Run
from keylm.tokenizer import CONTROL_TOKENS, Tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("writer") / "run")


@pytest.fixture(scope="module")
def tokenizer(run: Run) -> Tokenizer:
    return Tokenizer.load(run.stage("tokenizer"))


@pytest.fixture(scope="module")
def writer(run: Run) -> LlamaWriter:
    return llama_writer.of_run(run, "sft")


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    asked = [task.messages for task in held_out(70, 0)]
    rows = [chat.encode(tokenizer, messages, add_generation_prompt=True)[0] for messages in asked]
    return [row for row in rows if len(row) < 256]


def test_answers_are_those_of_our_own_decoder(
    run: Run, tokenizer: Tokenizer, writer: LlamaWriter, prompts: list[list[int]]
) -> None:
    """Up to the first control token: where ours is asked to go on behind one, llama.cpp ends any text."""
    model = models.load(run.recipe.model, run.weights("sft"))
    controls = {tokenizer.backend.token_to_id(token) for token in CONTROL_TOKENS}
    rows = generate(model, prompts, 24, stop=tokenizer.turn_end)
    answers = writer.write(prompts, 24)
    assert len(answers) == len(rows) > 50
    for answer, row in zip(answers, rows, strict=True):
        ends = [place for place, token in enumerate(row) if token in controls]
        assert answer.text == tokenizer.decode(row[: ends[0]] if ends else row)
        assert answer.ended == bool(ends)


def test_the_context_and_stop_strings_end_an_answer(
    tokenizer: Tokenizer, writer: LlamaWriter, prompts: list[list[int]]
) -> None:
    full = [tokenizer.encode("a")[0]] * 256
    assert writer.write([full], 8)[0] == llama_writer.Answer("", ended=False)
    answers = writer.write(prompts, 16)
    place, whole = next((place, answer.text) for place, answer in enumerate(answers) if answer.text.isascii())
    (short,) = writer.write([prompts[place]], 16, stop=[whole[10:14]])
    assert short.text == whole[: whole.index(whole[10:14])]
    assert short.ended


def test_lm_eval_gets_the_answers_of_its_own_adapter(run: Run) -> None:
    ours = load_model(run)
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=4, add_bos_token=False)
    asked = [chat.render(task.messages, add_generation_prompt=True) for task in held_out(24, 1)]
    options = {"until": [], "do_sample": False, "max_gen_toks": 12}
    requests = [Instance("generate_until", {}, (text, dict(options)), number) for number, text in enumerate(asked)]
    here, there = ours.generate_until(requests), theirs.generate_until(requests, disable_tqdm=True)
    same = sum(first == second for first, second in zip(here, there, strict=True))
    assert all(second.startswith(first) for first, second in zip(here, there, strict=True))
    assert same > 0.7 * len(asked)


def test_a_damaged_file_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(KeyLMError, match=r"cannot load .*broken\.gguf"):
        LlamaWriter(path, 256)
