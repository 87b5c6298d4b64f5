"""Answers by llama.cpp, compared with those of transformers on the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny_run import tiny_run
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from keylm.common.errors import KeyLMError
from keylm.evaluate.lm_eval_adapter import run_lm
from keylm.inference import generator
from keylm.inference.generator import LlamaCppGenerator, generator_of_run
from keylm.instructions.splits import held_out
from keylm.run import Run
from keylm.tokenizer.chat_template import render
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import CONTROL_TOKENS, Tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("generator") / "run")


@pytest.fixture(scope="module")
def tokenizer(run: Run) -> Tokenizer:
    return Tokenizer.load(run.stage("tokenizer"))


@pytest.fixture(scope="module")
def llama_cpp(run: Run) -> LlamaCppGenerator:
    return generator_of_run(run, "sft")


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    asked = [task.messages for task in held_out(70, 0)]
    rows = [encode_messages(tokenizer, messages, add_generation_prompt=True)[0] for messages in asked]
    return [row for row in rows if len(row) < 256]


def test_answers_are_those_of_transformers(run: Run, tokenizer: Tokenizer, prompts: list[list[int]]) -> None:
    """Up to the first control token: where transformers is asked to go on behind one, llama.cpp ends any text."""
    model = transformers_model(run)
    controls = [tokenizer.backend.token_to_id(token) for token in CONTROL_TOKENS]
    answers = generator_of_run(run, "sft").greedy(prompts, 24)
    assert len(answers) == len(prompts) > 50
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = model.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=controls, pad_token_id=controls[0]
        )
        *tokens, last = ids[0, len(prompt) :].tolist()
        assert answer.text == tokenizer.decode(tokens if last in controls else [*tokens, last])
        assert answer.ended == (last in controls)


def transformers_model(run: Run) -> Qwen3ForCausalLM:
    model = Qwen3ForCausalLM(Qwen3Config(**run.recipe.model.transformers_fields, tie_word_embeddings=False))
    model.load_state_dict(load_file(run.weights("sft")))
    return model.eval()


def test_samples_follow_the_model_s_distribution(run: Run, llama_cpp: LlamaCppGenerator, tokenizer: Tokenizer) -> None:
    """First tokens of 3,000 answers to one prompt, against the softmax of transformers' logits."""
    prompt = encode_messages(tokenizer, [{"role": "user", "content": "What is a tide?"}], add_generation_prompt=True)[0]
    temperature = 2.0
    with torch.no_grad():
        expected = (transformers_model(run)(torch.tensor([prompt])).logits[0, -1] / temperature).softmax(-1)
    samples = llama_cpp.sample([prompt] * 3000, 1, temperature, seed=1)
    assert all(len(answer.tokens) == (not answer.ended) for answer in samples)
    counts = torch.bincount(torch.tensor([answer.tokens[0] for answer in samples if answer.tokens]), minlength=2000)
    for token in expected.topk(5).indices.tolist():
        if token not in {tokenizer.backend.token_to_id(control) for control in CONTROL_TOKENS}:
            share, likely = counts[token].item() / 3000, expected[token].item()
            assert share == pytest.approx(likely, abs=5 * (likely * (1 - likely) / 3000) ** 0.5)


def test_samples_have_token_ids_and_follow_the_seed(
    llama_cpp: LlamaCppGenerator, tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    samples = llama_cpp.sample(prompts, 24, 1.0, seed=1)
    for answer in samples:
        assert tokenizer.decode(answer.tokens) == answer.text
        assert answer.ended or len(answer.tokens) == 24
    assert llama_cpp.sample(prompts, 24, 1.0, seed=2) != samples


def test_the_context_and_stop_strings_end_an_answer(
    tokenizer: Tokenizer, llama_cpp: LlamaCppGenerator, prompts: list[list[int]]
) -> None:
    full = [tokenizer.encode("a")[0]] * 256
    assert llama_cpp.greedy([full], 8)[0] == generator.Answer("", ended=False)
    answers = llama_cpp.greedy(prompts, 16)
    index, whole = next((index, answer.text) for index, answer in enumerate(answers) if answer.text.isascii())
    (short,) = llama_cpp.greedy([prompts[index]], 16, stop=[whole[10:14]])
    assert short.text == whole[: whole.index(whole[10:14])]
    assert short.ended


def test_lm_eval_gets_the_answers_of_hf(run: Run) -> None:
    ours = run_lm(run)
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=4, add_bos_token=False)
    asked = [render(task.messages, add_generation_prompt=True) for task in held_out(24, 1)]
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
        LlamaCppGenerator(path, 256)
