"""GGUF files in llama-cpp-python, which builds its own version of llama.cpp."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from helpers.greedy import num_equal
from transformers import AutoModelForCausalLM, AutoTokenizer

from keylm.export.tokenizer_stress_texts import stress_texts
from keylm.export.verify import CONVERSATIONS
from keylm.gguf.locate import gguf_path
from keylm.run import Run
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import Tokenizer

llama_cpp = pytest.importorskip("llama_cpp", reason="`pip install llama-cpp-python` takes half an hour")


@pytest.fixture(scope="module")
def llama(exported: Run) -> llama_cpp.Llama:
    context = exported.recipe.model.max_position_embeddings
    return llama_cpp.Llama(str(gguf_path(exported, "F16")), n_ctx=context, n_threads=1, verbose=False)


def test_token_ids_match_transformers(exported: Run, llama: llama_cpp.Llama) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported.stage("export") / "transformers")
    for text in stress_texts(2000):
        assert llama.tokenize(text.encode(), add_bos=False, special=True) == tokenizer(text)["input_ids"]


def test_greedy_text_matches_transformers(exported: Run, llama: llama_cpp.Llama) -> None:
    folder = exported.stage("export") / "transformers"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.load(exported.stage("tokenizer"))
    num_compared = 0
    for messages in CONVERSATIONS:
        prompt = encode_messages(tokenizer, messages, add_generation_prompt=True)[0]
        written = list(islice(llama.generate(prompt, temp=0.0, repeat_penalty=1.0), 48))
        num_compared += num_equal(model, prompt, written)
    assert num_compared > 48
