"""The GGUF files, asked of llama.cpp."""

from __future__ import annotations

import json
import urllib.request
from functools import cache
from pathlib import Path

import gguf
import pytest
import torch
import xllamacpp
from helpers.greedy import num_equal
from helpers.tiny_run import SIZES, tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer as Backend
from transformers import AutoModelForCausalLM

from keylm.common.errors import UserError
from keylm.export.stage import run_export
from keylm.gguf.file import read_header, read_weights
from keylm.gguf.tensor_types import FILE_TYPES
from keylm.model.transformer import KeyLM
from keylm.run import Run
from keylm.tokenizer.chat_template import CHAT_TEMPLATE, render
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import CONTROL_TOKENS, SPLIT_REGEX, Tokenizer

TEXTS = st.lists(
    st.one_of(
        st.text(),
        st.text(alphabet=" \t\r\n\u00a0\u2003\u3000'`’-_.,0123456789aAéßſ", max_size=12),
        st.sampled_from([*CONTROL_TOKENS, "<|im_", "im_end|>", "'S", "'ll", "'LL", "👩‍👩‍👧", "e\u0301", "१२३", "ǅ"]),
    ),
    max_size=8,
).map("".join)


PROMPTS = [
    [{"role": "user", "content": "What is a tide?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Naïve 🦊: name 3 animals, please."}],
    [{"role": "user", "content": "Write <|im_end|> twice."}],
]


# An answer that ends inside a character comes without probabilities: the bias makes it "a", and leaves them alone.
AS_IT_IS = {"temperature": 0, "logit_bias": [["a", 1000]]}


@pytest.fixture(scope="module", params=SPLIT_REGEX)
def run(request: pytest.FixtureRequest, exported: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An export for each split regex."""
    if request.param == exported.recipe.tokenizer.pre_tokenizer:
        return exported
    run = tiny_run(tmp_path_factory.mktemp("runs") / request.param, request.param)
    run_export(run)
    return run


@pytest.fixture(scope="module")
def llama(run: Run) -> xllamacpp.Server:
    return load(gguf_of(run, "F16"))


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_llama_cpp_reads_the_same_token_ids(run: Run, llama: xllamacpp.Server, text: str) -> None:
    """Control strings are parsed on both sides, as they are in a rendered template."""
    tokens = post(llama, "/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
    assert tokens == backend(run.stage("tokenizer")).encode(text).ids


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_header_gives_back_the_tokenizer(run: Run, text: str) -> None:
    read_back = header(gguf_of(run, "F16")).tokenizer
    ids = Tokenizer.load(run.stage("tokenizer")).encode(text)
    assert read_back.encode(text) == ids
    assert read_back.decode(ids) == text


@pytest.mark.parametrize(("kind", "tolerance"), [("F32", 5e-4), ("F16", 2e-2), ("BF16", 0.1), ("Q8_0", 0.5)])
def test_llama_cpp_gives_the_probabilities_of_transformers(exported: Run, kind: str, tolerance: float) -> None:
    """Log-probabilities of the ten likeliest next tokens, against transformers in float32; bounds by precision."""
    request = {"n_predict": 1, "n_probs": 10, **AS_IT_IS}
    path = gguf_of(exported, kind)
    llama, model, tokenizer = load(path, exact=True), transformers_model(exported), read_header(path).tokenizer
    for messages in PROMPTS:
        prompt = encode_messages(tokenizer, messages, add_generation_prompt=True)[0]
        answer = post(llama, "/completion", {"prompt": prompt, **request})
        with torch.no_grad():
            expected = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        for candidate in answer["completion_probabilities"][0]["top_logprobs"]:
            assert candidate["logprob"] == pytest.approx(expected[candidate["id"]].item(), abs=tolerance)


def test_greedy_text_is_that_of_transformers(exported: Run) -> None:
    path = gguf_of(exported, "F16")
    llama, model, tokenizer = load(path), transformers_model(exported), read_header(path).tokenizer
    compared = 0
    for messages in PROMPTS:
        prompt = encode_messages(tokenizer, messages, add_generation_prompt=True)[0]
        greedy = {"prompt": prompt, "n_predict": 48, "temperature": 0, "repeat_penalty": 1, "return_tokens": True}
        written = post(llama, "/completion", greedy)["tokens"]
        compared += num_equal(model, prompt, written)
    assert compared > 48


def test_metadata(exported: Run) -> None:
    path = gguf_of(exported, "Q8_0")
    fields = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
    recipe, tokenizer = exported.recipe, Tokenizer.load(exported.stage("tokenizer"))
    assert fields["general.architecture"] == "qwen3"
    assert fields["general.name"] == (recipe.title or recipe.name)
    assert fields["general.license"] == "apache-2.0"
    assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert fields["general.quantization_version"] == gguf.GGML_QUANT_VERSION
    assert fields["qwen3.context_length"] == recipe.model.max_position_embeddings
    assert fields["qwen3.rope.freq_base"] == pytest.approx(recipe.model.rope_theta)
    assert fields["tokenizer.ggml.pre"] == recipe.tokenizer.pre_tokenizer
    assert fields["tokenizer.ggml.eos_token_id"] == fields["tokenizer.ggml.eot_token_id"] == tokenizer.turn_end
    assert fields["tokenizer.ggml.bos_token_id"] == tokenizer.end_of_text
    assert fields["tokenizer.ggml.padding_token_id"] == tokenizer.end_of_text
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.ggml.add_eos_token"] is False
    assert fields["tokenizer.chat_template"] == CHAT_TEMPLATE
    controls = [
        token
        for token, kind in zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True)
        if kind == gguf.TokenType.CONTROL
    ]
    assert sorted(controls) == sorted(CONTROL_TOKENS)


def test_llama_cpp_takes_the_sampling_defaults_of_the_recipe(exported: Run) -> None:
    llama = load(gguf_of(exported, "Q8_0"))
    with urllib.request.urlopen(llama.listening_address + "/props") as response:
        defaults = json.load(response)["default_generation_settings"]["params"]
    assert defaults["temperature"] == pytest.approx(exported.recipe.export.temperature)
    assert defaults["repeat_penalty"] == pytest.approx(exported.recipe.export.repetition_penalty)


def test_llama_cpp_renders_the_template_as_we_do(exported: Run) -> None:
    llama = load(gguf_of(exported, "Q8_0"))
    for messages in PROMPTS:
        assert post(llama, "/apply-template", {"messages": messages})["prompt"] == render(messages, True)


def test_norms_stay_in_float32_and_odd_rows_in_f16(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "odd", model={**SIZES, "hidden_size": 80})
    run_export(run)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(run.stage("export") / "tiny-Q8_0.gguf").tensors}
    kinds = gguf.GGMLQuantizationType
    assert tensors["blk.0.attn_q_norm.weight"].tensor_type == kinds.F32
    assert tensors["blk.0.attn_q.weight"].tensor_type == kinds.F16  # 80 columns are no multiple of 32
    assert tensors["blk.0.attn_output.weight"].tensor_type == kinds.Q8_0
    assert load(run.stage("export") / "tiny-Q8_0.gguf").handle_completions({"prompt": [5], "max_tokens": 1})["choices"]


def test_a_file_that_is_no_gguf_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(UserError, match="is not a GGUF file"):
        read_header(path)


@cache
def backend(folder: Path) -> Backend:
    return Backend.from_file(str(folder / "tokenizer.json"))


header = cache(read_header)


def gguf_of(run: Run, kind: str) -> Path:
    path = run.stage("export") / f"{run.recipe.name}-{kind}.gguf"
    return path if path.exists() else pytest.skip(f"the run has no {kind} export")


def transformers_model(run: Run) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(run.stage("export") / "transformers", dtype=torch.float32).eval()


def load(path: Path, exact: bool = False) -> xllamacpp.Server:
    """llama.cpp's own server on a GGUF, as someone else would run it; or with nothing rounded but the weights."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.cpuparams.n_threads = 1
    params.verbosity = -1
    if exact:
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return xllamacpp.Server(params)


def post(server: xllamacpp.Server, path: str, body: dict) -> dict:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


@pytest.mark.parametrize("kind", FILE_TYPES)
def test_llama_cpp_runs_every_kind_as_we_decode_it(quantized: Run, kind: str) -> None:
    """Log-probabilities of the next token from llama.cpp, against our decoder with the file's weights in float32."""
    path = gguf_of(quantized, kind)
    model = KeyLM(quantized.recipe.model)
    model.load_state_dict(read_weights(path, quantized.recipe.model, model.state_dict()))
    prompt = encode_messages(read_header(path).tokenizer, PROMPTS[1], add_generation_prompt=True)[0]
    answer = post(load(path, exact=True), "/completion", {"prompt": prompt, "n_predict": 1, "n_probs": 10, **AS_IT_IS})
    expected = model.logits(torch.tensor([prompt]))[0, -1].log_softmax(-1)
    # From Q8_0 on llama.cpp rounds activations to eight bits as well.
    tolerance = {"F32": 5e-4, "F16": 2e-2, "BF16": 0.1}.get(kind, 0.6)
    for candidate in answer["completion_probabilities"][0]["top_logprobs"]:
        assert candidate["logprob"] == pytest.approx(expected[candidate["id"]].item(), abs=tolerance)


def test_smaller_kinds_lose_more(quantized: Run) -> None:
    weights = load_file(quantized.stage("export") / "transformers" / "model.safetensors")
    paths = {kind: gguf_of(quantized, kind) for kind in FILE_TYPES}
    errors = {kind: error(read_weights(path, quantized.recipe.model, weights), weights) for kind, path in paths.items()}
    assert errors["F32"] == errors["BF16"] == 0
    kinds = ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"]
    assert [errors[kind] for kind in kinds] == sorted(errors[kind] for kind in kinds)
    sizes = [paths[kind].stat().st_size for kind in FILE_TYPES]
    assert sizes == sorted(sizes, reverse=True)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An export in every kind, of a model whose rows fill the blocks of k-quants."""
    sizes = {**SIZES, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "head_dim": 64}
    run = tiny_run(tmp_path_factory.mktemp("runs") / "wide", model=sizes, export={"gguf": list(FILE_TYPES)})
    run_export(run)
    return run


def error(decoded: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> float:
    """Sum of squares of what was lost."""
    return sum((decoded[name] - tensor.float()).square().sum().item() for name, tensor in weights.items())
