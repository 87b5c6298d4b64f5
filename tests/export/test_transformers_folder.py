"""The transformers folder, loaded by transformers itself."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen3Config

from keylm.run import Run
from keylm.tokenizer.chat_template import render
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import Tokenizer

MESSAGES = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "  Is it 2024?\n\n"},
    {"role": "assistant", "content": "Naïvely: yes 🦊"},
    {"role": "user", "content": "Why?"},
]


def test_loads_without_remote_code_in_bfloat16(exported: Run) -> None:
    model, report = AutoModelForCausalLM.from_pretrained(
        exported.stage("export") / "transformers", dtype="auto", output_loading_info=True
    )
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert model.dtype == torch.bfloat16
    assert not any(report.values()), report


def test_all_files_have_the_same_permissions(exported: Run) -> None:
    assert len({path.stat().st_mode for path in (exported.stage("export") / "transformers").iterdir()}) == 1


def test_weights_are_rounded_to_bfloat16(exported: Run) -> None:
    trained = load_file(exported.weights("sft"))
    released = load_file(exported.stage("export") / "transformers" / "model.safetensors")
    assert trained.keys() == released.keys()
    for name, tensor in trained.items():
        assert torch.equal(tensor.bfloat16(), released[name]), name


def test_logits_match_the_trained_weights(exported: Run) -> None:
    folder = exported.stage("export") / "transformers"
    released = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trained = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    trained.load_state_dict(load_file(exported.weights("sft")))
    tokens = torch.randint(3, exported.recipe.model.vocab_size, (2, 32))
    with torch.no_grad():
        expected, actual = trained.eval()(tokens).logits, released.eval()(tokens).logits
    assert (actual - expected).std() < 0.03 * expected.std()  # bfloat16 keeps 8 bits: 0.4% a weight, over all layers


def test_config_suits_both_transformers_versions(exported: Run) -> None:
    config = json.loads((exported.stage("export") / "transformers" / "config.json").read_text())
    theta = exported.recipe.model.rope_theta
    assert config["rope_theta"] == theta
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": theta}
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["head_dim"] == exported.recipe.model.head_dim
    assert config["sliding_window"] is None
    assert not config["use_sliding_window"]
    assert not config["tie_word_embeddings"]
    assert not config["attention_bias"]
    assert "auto_map" not in config
    assert set(config) - set(Qwen3Config().to_dict()) <= {"rope_theta", "torch_dtype"}


def test_generation_config_has_both_stop_tokens(exported: Run) -> None:
    tokenizer = Tokenizer.load(exported.stage("tokenizer"))
    config = GenerationConfig.from_pretrained(exported.stage("export") / "transformers")
    assert config.eos_token_id == [tokenizer.turn_end, tokenizer.end_of_text]
    assert config.pad_token_id == tokenizer.end_of_text
    assert config.repetition_penalty == exported.recipe.export.repetition_penalty
    assert config.temperature == exported.recipe.export.temperature


@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_the_chat_template_matches_training(exported: Run, add_generation_prompt: bool) -> None:
    theirs = AutoTokenizer.from_pretrained(exported.stage("export") / "transformers")
    ours = Tokenizer.load(exported.stage("tokenizer"))
    rendered = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=add_generation_prompt)
    assert rendered == render(MESSAGES, add_generation_prompt)
    encoded = theirs.apply_chat_template(MESSAGES, add_generation_prompt=add_generation_prompt, return_dict=True)
    assert encoded["input_ids"] == encode_messages(ours, MESSAGES, add_generation_prompt)[0]


def test_the_snippet_of_the_card_works(exported: Run) -> None:
    """By default, transformers 4 adds token_type_ids, which `generate` rejects."""
    tokenizer = AutoTokenizer.from_pretrained(exported.stage("export") / "transformers")
    inputs = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert set(inputs) == {"input_ids", "attention_mask"}
    config = json.loads((exported.stage("export") / "transformers" / "tokenizer_config.json").read_text())
    assert config["model_input_names"] == ["input_ids", "attention_mask"]


def test_the_tokenizer_is_the_trained_one(exported: Run) -> None:
    theirs = AutoTokenizer.from_pretrained(exported.stage("export") / "transformers")
    ours = Tokenizer.load(exported.stage("tokenizer"))
    text = "Don't panic:  it's\n\n12345 Straße 東京 🐕‍🦺 \x00\u200b"
    assert theirs(text)["input_ids"] == ours.encode(text)
    assert theirs.decode(theirs(text)["input_ids"]) == text
    assert theirs.bos_token_id == ours.end_of_text
    assert theirs.eos_token_id == ours.turn_end
