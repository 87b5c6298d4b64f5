"""GGUF files, loaded by llama.cpp."""

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
from keylm.gguf.file import read_gguf_weights
from keylm.gguf.header import read_gguf_header, read_gguf_metadata
from keylm.gguf.locate import gguf_path
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
    return load_server(existing_gguf(run, "F16"))


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An export in every file type, of a model whose rows fill the blocks of k-quants."""
    sizes = {**SIZES, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "head_dim": 64}
    run = tiny_run(tmp_path_factory.mktemp("runs") / "wide", model=sizes, export={"gguf": list(FILE_TYPES)})
    run_export(run)
    return run


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_llama_cpp_gives_the_same_token_ids(run: Run, llama: xllamacpp.Server, text: str) -> None:
    """Control tokens are parsed on both sides, as they are in a rendered conversation."""
    tokens = post(llama, "/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
    assert tokens == backend(run.stage("tokenizer")).encode(text).ids


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_the_header_restores_the_tokenizer(run: Run, text: str) -> None:
    restored = cached_header(existing_gguf(run, "F16")).tokenizer
    ids = Tokenizer.load(run.stage("tokenizer")).encode(text)
    assert restored.encode(text) == ids
    assert restored.decode(ids) == text


@pytest.mark.parametrize(("file_type", "tolerance"), [("F32", 5e-4), ("F16", 2e-2), ("BF16", 0.1), ("Q8_0", 0.5)])
def test_log_probabilities_match_transformers(exported: Run, file_type: str, tolerance: float) -> None:
    """Those of the ten most likely next tokens, in float32; the tolerance follows from the file's precision."""
    path = existing_gguf(exported, file_type)
    llama, model = load_server(path, exact=True), transformers_model(exported)
    tokenizer = read_gguf_header(path).tokenizer
    for messages in PROMPTS:
        prompt = encode_messages(tokenizer, messages, add_generation_prompt=True)[0]
        with torch.no_grad():
            expected = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        for token, logprob in top_logprobs(llama, prompt):
            assert logprob == pytest.approx(expected[token].item(), abs=tolerance)


def test_greedy_text_matches_transformers(exported: Run) -> None:
    path = existing_gguf(exported, "F16")
    llama, model, tokenizer = load_server(path), transformers_model(exported), read_gguf_header(path).tokenizer
    num_compared = 0
    for messages in PROMPTS:
        prompt = encode_messages(tokenizer, messages, add_generation_prompt=True)[0]
        greedy = {"prompt": prompt, "n_predict": 48, "temperature": 0, "repeat_penalty": 1, "return_tokens": True}
        written = post(llama, "/completion", greedy)["tokens"]
        num_compared += num_equal(model, prompt, written)
    assert num_compared > 48


def test_metadata(exported: Run) -> None:
    path = existing_gguf(exported, "Q8_0")
    fields = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
    recipe, tokenizer = exported.recipe, Tokenizer.load(exported.stage("tokenizer"))
    assert fields["general.architecture"] == "qwen3"
    assert fields["general.name"] == (recipe.title or recipe.name)
    assert fields.get("general.license") == (recipe.export.license or None)
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
    tokens = zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True)
    control_tokens = [token for token, token_type in tokens if token_type == gguf.TokenType.CONTROL]
    assert sorted(control_tokens) == sorted(CONTROL_TOKENS)


def test_the_metadata_is_what_the_gguf_package_reads(exported: Run) -> None:
    path = existing_gguf(exported, "Q8_0")
    fields = gguf.GGUFReader(path).fields.items()
    expected = {key: field.contents() for key, field in fields if not key.startswith("GGUF.")}
    metadata = read_gguf_metadata(path)
    assert list(metadata) == list(expected)
    assert metadata == expected


def test_llama_cpp_uses_the_sampling_defaults(exported: Run) -> None:
    llama = load_server(existing_gguf(exported, "Q8_0"))
    with urllib.request.urlopen(llama.listening_address + "/props") as response:
        defaults = json.load(response)["default_generation_settings"]["params"]
    assert defaults["temperature"] == pytest.approx(exported.recipe.export.temperature)
    assert defaults["repeat_penalty"] == pytest.approx(exported.recipe.export.repetition_penalty)


def test_llama_cpp_renders_the_chat_template(exported: Run) -> None:
    llama = load_server(existing_gguf(exported, "Q8_0"))
    for messages in PROMPTS:
        assert post(llama, "/apply-template", {"messages": messages})["prompt"] == render(messages, True)


def test_norms_stay_in_float32_and_odd_rows_in_f16(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "odd", model={**SIZES, "hidden_size": 80})
    run_export(run)
    path = gguf_path(run, "Q8_0")
    types = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}
    assert types["blk.0.attn_q_norm.weight"] == gguf.GGMLQuantizationType.F32
    assert types["blk.0.attn_q.weight"] == gguf.GGMLQuantizationType.F16  # 80 columns are no multiple of 32
    assert types["blk.0.attn_output.weight"] == gguf.GGMLQuantizationType.Q8_0
    assert load_server(path).handle_completions({"prompt": [5], "max_tokens": 1})["choices"]


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_llama_cpp_agrees_with_our_decoding(quantized: Run, file_type: str) -> None:
    """Log-probabilities of the next token from llama.cpp, and from our model with the file's weights in float32."""
    path = existing_gguf(quantized, file_type)
    model = KeyLM(quantized.recipe.model)
    model.load_state_dict(read_gguf_weights(path, quantized.recipe.model, model.state_dict()))
    prompt = encode_messages(read_gguf_header(path).tokenizer, PROMPTS[1], add_generation_prompt=True)[0]
    expected = model.logits(torch.tensor([prompt]))[0, -1].log_softmax(-1)
    # From Q8_0 on llama.cpp rounds activations to eight bits as well.
    tolerance = {"F32": 5e-4, "F16": 2e-2, "BF16": 0.1}.get(file_type, 0.6)
    for token, logprob in top_logprobs(load_server(path, exact=True), prompt):
        assert logprob == pytest.approx(expected[token].item(), abs=tolerance)


def test_smaller_files_are_less_accurate(quantized: Run) -> None:
    weights = load_file(quantized.stage("export") / "transformers" / "model.safetensors")
    errors, sizes = {}, []
    for file_type in FILE_TYPES:
        path = existing_gguf(quantized, file_type)
        decoded = read_gguf_weights(path, quantized.recipe.model, weights)
        errors[file_type] = sum((decoded[name] - weights[name].float()).square().sum().item() for name in weights)
        sizes.append(path.stat().st_size)
    assert errors["F32"] == errors["BF16"] == 0
    by_size = [errors[file_type] for file_type in ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")]
    assert by_size == sorted(by_size)
    assert sizes == sorted(sizes, reverse=True)


def test_a_file_that_is_not_a_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(UserError, match="is not a GGUF file"):
        read_gguf_header(path)


@pytest.mark.parametrize("num_bytes", [0, 10, 30, 500, 5000])
def test_a_truncated_file_is_refused(exported: Run, tmp_path: Path, num_bytes: int) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(existing_gguf(exported, "Q8_0").read_bytes()[:num_bytes])
    with pytest.raises(UserError, match="or is damaged"):
        read_gguf_header(path)


@cache
def backend(folder: Path) -> Backend:
    return Backend.from_file(str(folder / "tokenizer.json"))


cached_header = cache(read_gguf_header)


def existing_gguf(run: Run, file_type: str) -> Path:
    """A file of the export; the test is skipped if the run has none of that type."""
    path = gguf_path(run, file_type)
    return path if path.exists() else pytest.skip(f"the run has no {file_type} export")


def transformers_model(run: Run) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(run.stage("export") / "transformers", dtype=torch.float32).eval()


def load_server(path: Path, exact: bool = False) -> xllamacpp.Server:
    """A GGUF in llama.cpp's own server: with its defaults, or with nothing rounded but the weights."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.cpuparams.n_threads = 1
    params.verbosity = -1
    if exact:
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return xllamacpp.Server(params)


def top_logprobs(server: xllamacpp.Server, prompt: list[int]) -> list[tuple[int, float]]:
    """The ten most likely next tokens and their log-probabilities."""
    # The server omits them if the sampled token is an incomplete character: the bias makes it "a", and does not
    # change them.
    bias = {"temperature": 0, "logit_bias": [["a", 1000]]}
    answer = post(server, "/completion", {"prompt": prompt, "n_predict": 1, "n_probs": 10, **bias})
    return [(top["id"], top["logprob"]) for top in answer["completion_probabilities"][0]["top_logprobs"]]


def post(server: xllamacpp.Server, path: str, body: dict) -> dict:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)
