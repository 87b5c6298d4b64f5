"""Answers by our own decoder and by llama.cpp, compared with those of transformers on the same weights."""

from __future__ import annotations

import subprocess
import sys
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
from keylm.gguf.file import write_gguf
from keylm.inference import generator
from keylm.inference.answers import Answer
from keylm.inference.generator import KeyLMGenerator, generator_of_run, generator_of_weights
from keylm.inference.llama_cpp import LlamaCppGenerator
from keylm.instructions.splits import held_out
from keylm.run import Run, open_run
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
def keylm(run: Run) -> KeyLMGenerator:
    return generator_of_run(run, "sft")


@pytest.fixture(scope="module")
def llama_cpp(run: Run, tmp_path_factory: pytest.TempPathFactory) -> LlamaCppGenerator:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(run.recipe, run.stage("tokenizer"), load_file(run.weights("sft")), "F32", path)
    return LlamaCppGenerator(path, run.recipe.model.max_position_embeddings)


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    asked = [task.messages for task in held_out(70, 0)]
    rows = [encode_messages(tokenizer, messages, add_generation_prompt=True)[0] for messages in asked]
    return [row for row in rows if len(row) < 256]


@pytest.mark.parametrize("name", ["keylm", "llama_cpp"])
def test_answers_are_those_of_transformers(
    name: str, request: pytest.FixtureRequest, run: Run, tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    """Up to the first control token: where transformers is asked to go on behind one, ours and llama.cpp end."""
    model = transformers_model(run)
    controls = [tokenizer.backend.token_to_id(token) for token in CONTROL_TOKENS]
    answers = request.getfixturevalue(name).greedy(prompts, 24)
    assert len(answers) == len(prompts) > 50
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = model.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=controls, pad_token_id=controls[0]
        )
        *tokens, last = ids[0, len(prompt) :].tolist()
        assert answer.text == tokenizer.decode(tokens if last in controls else [*tokens, last])
        assert answer.ended == (last in controls)


def test_repeated_tokens_are_penalized_as_in_transformers(
    run: Run, tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    penalized = generator_of_run(open_run(run.folder, ["eval.repetition_penalty=1.3"]), "sft")
    model = transformers_model(run)
    controls = [tokenizer.backend.token_to_id(token) for token in CONTROL_TOKENS]
    answers = penalized.greedy(prompts[:20], 24)
    assert answers != generator_of_run(run, "sft").greedy(prompts[:20], 24)
    for prompt, answer in zip(prompts, answers, strict=False):
        ids = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=24,
            do_sample=False,
            repetition_penalty=1.3,
            eos_token_id=controls,
            pad_token_id=controls[0],
        )
        *tokens, last = ids[0, len(prompt) :].tolist()
        assert answer.text == tokenizer.decode(tokens if last in controls else [*tokens, last])


def transformers_model(run: Run) -> Qwen3ForCausalLM:
    model = Qwen3ForCausalLM(Qwen3Config(**run.recipe.model.transformers_fields, tie_word_embeddings=False))
    model.load_state_dict(load_file(run.weights("sft")))
    return model.eval()


def test_samples_follow_the_model_s_distribution(run: Run, keylm: KeyLMGenerator, tokenizer: Tokenizer) -> None:
    """First tokens of 3,000 answers to one prompt, against the softmax of transformers' logits."""
    prompt = encode_messages(tokenizer, [{"role": "user", "content": "What is a tide?"}], add_generation_prompt=True)[0]
    temperature = 2.0
    with torch.no_grad():
        expected = (transformers_model(run)(torch.tensor([prompt])).logits[0, -1] / temperature).softmax(-1)
    samples = keylm.sample([prompt] * 3000, 1, temperature, seed=1)
    assert all(len(answer.tokens) == (not answer.ended) for answer in samples)
    counts = torch.bincount(torch.tensor([answer.tokens[0] for answer in samples if answer.tokens]), minlength=2000)
    for token in expected.topk(5).indices.tolist():
        if token not in {tokenizer.backend.token_to_id(control) for control in CONTROL_TOKENS}:
            share, likely = counts[token].item() / 3000, expected[token].item()
            assert share == pytest.approx(likely, abs=5 * (likely * (1 - likely) / 3000) ** 0.5)


def test_samples_have_token_ids_and_follow_the_seed(
    keylm: KeyLMGenerator, tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    samples = keylm.sample(prompts, 24, 1.0, seed=1)
    for answer in samples:
        assert tokenizer.decode(answer.tokens) == answer.text
        assert answer.ended or len(answer.tokens) == 24
    assert keylm.sample(prompts, 24, 1.0, seed=1) == samples
    assert keylm.sample(prompts, 24, 1.0, seed=2) != samples


@pytest.mark.parametrize(("num_slots", "cache_bytes"), [(1, 2**30), (5, 2**30), (128, 2**19)])
def test_answers_do_not_depend_on_the_slots(
    keylm: KeyLMGenerator,
    prompts: list[list[int]],
    num_slots: int,
    cache_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = keylm.greedy(prompts, 24), keylm.sample(prompts, 24, 1.0, seed=1)
    monkeypatch.setattr(generator, "NUM_SLOTS", num_slots)
    monkeypatch.setattr(generator, "_CACHE_BYTES", cache_bytes)
    monkeypatch.setattr(generator, "_PREFILL_TOKENS", 100)
    assert (keylm.greedy(prompts, 24), keylm.sample(prompts, 24, 1.0, seed=1)) == expected


def test_weights_of_a_trainer_answer_as_saved_ones(run: Run, keylm: KeyLMGenerator, prompts: list[list[int]]) -> None:
    weights = transformers_model(run).state_dict()
    assert generator_of_weights(run, weights).greedy(prompts[:8], 16) == keylm.greedy(prompts[:8], 16)


def test_no_prompts_have_no_answers(keylm: KeyLMGenerator) -> None:
    assert keylm.greedy([], 8) == []
    assert keylm.greedy([[]], 0) == [Answer("", ended=False)]


@pytest.mark.parametrize("name", ["keylm", "llama_cpp"])
def test_a_full_context_cuts_an_answer_off(
    name: str, request: pytest.FixtureRequest, run: Run, tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    """Prompts that leave 3 tokens of the context have the first 3 tokens of what transformers writes."""
    reference = transformers_model(run)
    long = [(prompt * 256)[-253:] for prompt in prompts[:8]]
    controls = {tokenizer.backend.token_to_id(token) for token in CONTROL_TOKENS}
    answers = request.getfixturevalue(name).greedy([long[0], prompts[0], *long[1:]], 24)
    del answers[1]
    for prompt, answer in zip(long, answers, strict=True):
        ids = reference.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, 253), max_new_tokens=3, do_sample=False
        )[0, 253:].tolist()
        ends = [index for index, token in enumerate(ids) if token in controls]
        assert answer.text == tokenizer.decode(ids[: min(ends, default=3)])
        assert answer.ended == bool(ends)


@pytest.mark.parametrize("name", ["keylm", "llama_cpp"])
def test_the_context_and_stop_strings_end_an_answer(
    name: str, request: pytest.FixtureRequest, tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    model = request.getfixturevalue(name)
    full = [tokenizer.encode("a")[0]] * 256
    assert model.greedy([full], 8)[0] == Answer("", ended=False)
    answers = model.greedy(prompts, 16)
    index, whole = next((index, answer.text) for index, answer in enumerate(answers) if answer.text.isascii())
    (short,) = model.greedy([prompts[index]], 16, stop=[whole[10:14]])
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


def test_a_server_that_answered_nothing_can_be_closed(run: Run, llama_cpp: LlamaCppGenerator) -> None:
    program = (
        "import sys; from pathlib import Path; from keylm.inference.llama_cpp import exact_server\n"
        "for _ in range(10): exact_server(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", program, str(llama_cpp.path)], check=True, timeout=120)
