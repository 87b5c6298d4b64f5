"""The tokenizer: a byte-level BPE with ChatML control tokens, saved in the form that transformers loads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from keylm.common.errors import UserError
from keylm.common.files import write_json
from keylm.tokenizer.chat_template import CHAT_TEMPLATE

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
CONTROL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)

_NUMBERS_OF_QWEN2 = r"\p{N}"
_NUMBERS_OF_LLAMA = r"\p{N}{1,3}"
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT_REGEX = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen2": _WORDS.format(numbers=_NUMBERS_OF_QWEN2),
    "llama-bpe": _WORDS.format(numbers=_NUMBERS_OF_LLAMA),
}
"""Split regexes by the name under which llama.cpp knows them (`tokenizer.ggml.pre`)."""


class Tokenizer:
    """A trained tokenizer.

    `encode` treats every string as plain text: control strings that a user wrote stay characters. Control tokens
    enter a sequence by their ids alone, put there by `keylm.tokenizer.messages`.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.backend.encode_special_tokens = True

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Load `tokenizer.json` from a folder.

        Raises:
            UserError: there is none.
        """
        path = folder / "tokenizer.json"
        if not path.exists():
            raise UserError(f"{folder} has no tokenizer.json: run the `tokenizer` stage first")
        return cls(Backend.from_file(str(path)))

    @cached_property
    def vocab_size(self) -> int:
        """Number of tokens, control tokens included."""
        return int(self.backend.get_vocab_size())

    @cached_property
    def end_of_text(self) -> int:
        """Id of the token that separates documents; also the padding token."""
        return self._control(END_OF_TEXT)

    @cached_property
    def turn_start(self) -> int:
        """Id of the token that opens a turn."""
        return self._control(TURN_START)

    @cached_property
    def turn_end(self) -> int:
        """Id of the token that closes a turn."""
        return self._control(TURN_END)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Token ids of many plain texts, on as many threads as `TOKENIZERS_PARALLELISM` allows."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: list[int], keep_control: bool = False) -> str:
        """Text of token ids; control tokens are left out unless `keep_control`."""
        return str(self.backend.decode(ids, skip_special_tokens=not keep_control))

    def save(self, folder: Path, context_length: int) -> None:
        """Write a folder that transformers' `AutoTokenizer` loads as `PreTrainedTokenizerFast`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.encode_special_tokens = False
        self.backend.save(str(folder / "tokenizer.json"))
        self.backend.encode_special_tokens = True
        write_json(folder / "tokenizer_config.json", _transformers_config(context_length))
        write_json(folder / "special_tokens_map.json", _special_tokens_map())
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")

    def _control(self, token: str) -> int:
        index = self.backend.token_to_id(token)
        if index is None:
            raise UserError(f"this tokenizer has no {token} token: it was not trained by keylm")
        return int(index)


def train_tokenizer(texts: Iterable[str], vocab_size: int, pre_tokenizer: str) -> Tokenizer:
    """Learn a byte-level BPE (Sennrich et al. 2016; byte alphabet of GPT-2) of exactly `vocab_size` tokens.

    Raises:
        UserError: the text is too small to yield so many merges.
    """
    backend = assemble(models.BPE(), pre_tokenizer)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if backend.get_vocab_size() != vocab_size:
        raise UserError(
            f"the text yields only {backend.get_vocab_size():,} tokens, but model.vocab_size asks for "
            f"{vocab_size:,}: give more text or a smaller vocabulary"
        )
    return Tokenizer(backend)


def assemble(model: models.BPE, pre_tokenizer: str) -> Backend:
    """A byte-level tokenizer around `model`: split by the named regex, then bytes as the 256 letters of GPT-2."""
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_REGEX[pre_tokenizer]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def merges(folder: Path) -> Iterator[str]:
    """The merges of a saved tokenizer, in order, as `left right`."""
    saved = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for merge in saved["model"]["merges"]:
        yield merge if isinstance(merge, str) else " ".join(merge)


def _special_tokens_map() -> dict[str, str]:
    return {"bos_token": END_OF_TEXT, "eos_token": TURN_END, "pad_token": END_OF_TEXT}


def _transformers_config(context_length: int) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        # Without this, transformers 4 adds token_type_ids, which the model's generate() refuses.
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "chat_template": CHAT_TEMPLATE,
        **_special_tokens_map(),
    }
