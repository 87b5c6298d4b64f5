import lzma
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen3Config, Qwen3ForCausalLM

from keylm.data.prepare.token_store import StoreWriter, TokenStore
from keylm.evaluate.bits_per_byte import compare_bits_per_byte, excerpt, model_bits, windows, xz_bits
from keylm.model.initialization import init_model
from keylm.model.transformer import KeyLM
from keylm.tokenizer.tokenizer import Tokenizer
from keylm.tokenizer.training import train_tokenizer

TEXTS = ["A straße, 東京 and 🦊.\n\n", "The second document.", "  A third\tone. " * 20]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 300, "qwen2")


@pytest.fixture
def store(tmp_path: Path, tokenizer: Tokenizer) -> TokenStore:
    writer = StoreWriter(tmp_path, shard_tokens=20, conversations=False)
    for number, text in enumerate(TEXTS):
        ids = np.array([*tokenizer.encode(text), tokenizer.end_of_text])
        writer.add(number, ids, np.ones(len(ids), bool), len(text.encode()))
    writer.finish()
    return TokenStore(tmp_path)


@given(num_tokens=st.integers(1, 300), length=st.integers(1, 40))
def test_windows_score_every_token_once_with_context(num_tokens: int, length: int) -> None:
    scored = []
    for window in windows(num_tokens, length):
        assert 0 < window.stop - window.start <= length
        assert window.start == 0 or window.scored - window.start >= length // 4
        scored += range(window.scored, window.stop)
    assert scored == list(range(num_tokens))


def test_a_uniform_model_needs_log2_of_the_vocabulary(tiny_model) -> None:
    model = init_model(tiny_model, seed=0).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    tokens = np.arange(250, dtype=np.uint16)
    advanced: list[int] = []
    assert model_bits(model, tokens, separator=0, length=16, advance=advanced.append) == pytest.approx(
        250 * math.log2(300)
    )
    assert sum(advanced) == 250


def test_bits_of_one_window_are_those_of_transformers(tiny_model) -> None:
    config = Qwen3Config(**tiny_model.transformers_fields, tie_word_embeddings=False, initializer_range=0.3)
    reference = Qwen3ForCausalLM(config).eval()
    model = KeyLM(tiny_model).eval()
    model.load_state_dict(reference.state_dict())
    tokens = np.random.default_rng(0).integers(0, 300, 40).astype(np.uint16)
    stream = torch.tensor([[0, *tokens.tolist()]])
    with torch.no_grad():
        mean_nats = reference(stream, labels=stream).loss.item()
    assert model_bits(model, tokens, separator=0, length=64) == pytest.approx(40 * mean_nats / math.log(2), rel=1e-4)


def test_batches_of_windows_equal_single_windows(tiny_model) -> None:
    model = init_model(tiny_model, seed=0).eval()
    torch.nn.init.normal_(model.lm_head.weight)
    tokens = np.random.default_rng(0).integers(0, 300, 101).astype(np.uint16)
    stream = torch.tensor([0, *tokens.tolist()])
    nats = 0.0
    for window in windows(101, 16):
        p = model.logits(stream[None, window.start : window.stop]).log_softmax(-1)[0]
        for position in range(window.scored, window.stop):
            nats -= p[position - window.start, stream[position + 1]].item()
    assert model_bits(model, tokens, separator=0, length=16) == pytest.approx(nats / math.log(2), rel=1e-4)


def test_an_excerpt_has_whole_documents(store: TokenStore, tokenizer: Tokenizer) -> None:
    one = excerpt(store, tokenizer, 1)
    assert (one.num_documents, one.num_bytes, one.text) == (1, len(TEXTS[0].encode()), TEXTS[0].encode())
    sizes = [len(text.encode()) for text in TEXTS]
    assert excerpt(store, tokenizer, sizes[0]).num_documents == 1
    assert excerpt(store, tokenizer, sizes[0] + 1).num_documents == 2
    everything = excerpt(store, tokenizer, 10**9)
    assert everything.text == "\0".join(TEXTS).encode()
    assert everything.num_bytes == sum(sizes)
    assert len(everything.tokens) == store.num_tokens


def test_bits_are_divided_by_the_bytes_of_the_text(store: TokenStore, tokenizer: Tokenizer, tiny_model) -> None:
    model = init_model(tiny_model, seed=0).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    part = excerpt(store, tokenizer, 10**9)
    row = compare_bits_per_byte({"pretrain": model}, part, tokenizer.end_of_text, 32, lambda _: None)
    assert row["pretrain"] == round(store.num_tokens * math.log2(300) / part.num_bytes, 4)
    assert row["xz"] == round(8 * len(lzma.compress(part.text, preset=9 | lzma.PRESET_EXTREME)) / part.num_bytes, 4)


@pytest.mark.skipif(not shutil.which("xz"), reason="the xz command is not installed")
def test_xz_bits_are_those_of_the_command(tmp_path: Path) -> None:
    text = Path(__file__).read_bytes() * 3
    packed = subprocess.run(["xz", "-9e", "-T1", "-c"], input=text, capture_output=True, check=True).stdout
    assert xz_bits(text) == 8 * len(packed)
