"""The tokenizer: a byte-level BPE with ChatML control tokens, saved as transformers loads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from keylm.common.errors import UserError
from keylm.common.files import write_json
from keylm.tokenizer.chat_template import CHAT_TEMPLATE

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
CONTROL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)

# Qwen2's regex, and with another rule for numbers Llama 3's.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT_REGEX = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen2": _WORDS.format(numbers=r"\p{N}"),
    "llama-bpe": _WORDS.format(numbers=r"\p{N}{1,3}"),
}
"""Split regexes by the names of llama.cpp (`tokenizer.ggml.pre`). A GGUF file holds only the name."""


class Tokenizer:
    """A trained tokenizer.

    `encode` treats all text as plain text: control strings that a user wrote stay characters. Control tokens enter a
    sequence by their ids alone, which `keylm.tokenizer.messages` inserts.
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
        return self._control_token_id(END_OF_TEXT)

    @cached_property
    def turn_start(self) -> int:
        """Id of the token that opens a turn."""
        return self._control_token_id(TURN_START)

    @cached_property
    def turn_end(self) -> int:
        """Id of the token that closes a turn."""
        return self._control_token_id(TURN_END)

    def encode(self, text: str) -> list[int]:
        """Encode plain text to token ids.

        Raises:
            UserError: The text is not Unicode.
        """
        with _refuse_surrogates():
            return list(self.backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Encode plain texts to token ids, on as many threads as `TOKENIZERS_PARALLELISM` allows.

        Raises:
            UserError: A text is not Unicode.
        """
        with _refuse_surrogates():
            return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: list[int], keep_control: bool = False) -> str:
        """Decode token ids to text. Control tokens are left out unless `keep_control`."""
        return str(self.backend.decode(ids, skip_special_tokens=not keep_control))

    def save(self, folder: Path, context_length: int) -> None:
        """Save a folder that transformers' `AutoTokenizer` loads, as `PreTrainedTokenizerFast`.

        Args:
            folder: The folder; it is created if it does not exist.
            context_length: Context length of the model, in tokens (`model_max_length`).
        """
        folder.mkdir(parents=True, exist_ok=True)
        # `encode_special_tokens` is not saved: transformers encodes rendered templates, where control strings count.
        self.backend.save(str(folder / "tokenizer.json"))

        special_tokens = {"bos_token": END_OF_TEXT, "eos_token": TURN_END, "pad_token": END_OF_TEXT}
        config = {
            # Under transformers 5, the classes of Llama and GPT-2 break byte-level BPE.
            "tokenizer_class": "PreTrainedTokenizerFast",
            # Without this, transformers 4 adds token_type_ids, which the model's generate() refuses.
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": context_length,
            "clean_up_tokenization_spaces": False,
            "add_bos_token": False,
            "add_eos_token": False,
            "chat_template": CHAT_TEMPLATE,
            **special_tokens,
        }
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", special_tokens)
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")

    def _control_token_id(self, token: str) -> int:
        token_id = self.backend.token_to_id(token)
        if token_id is None:
            raise UserError(f"this tokenizer has no {token} token: it was not trained by keylm")
        return int(token_id)


@contextmanager
def _refuse_surrogates() -> Iterator[None]:
    try:
        yield
    except TypeError as error:
        # Python reads bytes that are not UTF-8, at a terminal or on the command line, as lone surrogates.
        raise UserError("a text holds bytes that are not UTF-8, or half of a surrogate pair") from error


def byte_level_backend(model: models.BPE, pre_tokenizer: str) -> Backend:
    """Make a byte-level tokenizer around `model`: it splits by the named regex, then maps bytes to GPT-2's letters."""
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_REGEX[pre_tokenizer]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def read_merges(folder: Path) -> Iterator[str]:
    """Yield the merges of a saved tokenizer, in order, as `left right`."""
    saved = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for merge in saved["model"]["merges"]:
        # tokenizers 0.20 and later save pairs, earlier versions strings.
        yield merge if isinstance(merge, str) else " ".join(merge)
