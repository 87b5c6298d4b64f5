"""Models that are no runs, such as a neighbour from a package: a GGUF file or a folder, as transformers loads them.

Answers to a GGUF's requests are written by llama.cpp, which is made for it; what reads them is transformers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from keylm.common.console import progress
from keylm.common.documents import Message
from keylm.common.errors import UserError
from keylm.evaluate import provenance
from keylm.evaluate.instructions import measure, print_scores, splits
from keylm.inference.answers import Answer
from keylm.inference.generator import LlamaCppGenerator
from keylm.instructions.constraints.catalog import CONSTRAINT_SETS
from keylm.recipe.eval import EvalConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCH_SIZE = 16
_MOST_CONTEXT = 2048
"""Tokens of a conversation's cache in llama.cpp: no request here needs more, and longer ones would take gigabytes."""


def is_external(path: Path) -> bool:
    """Whether `path` is a model that is no run: a GGUF file, or a folder with a `config.json`."""
    return path.suffix == ".gguf" or (path / "config.json").exists()


def measure_and_print(path: Path, num: int | None = None) -> dict[str, Any]:
    """Ask a model the held-out instructions of the basic kinds, print a table, and return the scores with their source.

    `num` tasks of each split; by default as many as a recipe asks for.

    Raises:
        UserError: there is no such model, or it has no chat template.
    """
    settings = EvalConfig()
    model, tokenizer = load_external(path)
    speaker = TransformersChatModel(model, tokenizer, writer(path, model) if path.is_file() else None)
    tasks = splits(settings.instructions, seed=0, kinds=CONSTRAINT_SETS["basic"], each=num)
    found = {name: measure(speaker, each, settings.max_new_tokens) for name, each in tasks.items()}
    print_scores(found)
    return {**provenance.provenance_of(path, [], None), "instructions": found}


def load_external(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The weights in float32, those of a GGUF decoded, and the tokenizer.

    Raises:
        UserError: there is no such model, or transformers cannot read it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, utils

    if not path.exists():
        raise UserError(f"{path} does not exist: name a GGUF file or a transformers folder")
    utils.logging.disable_progress_bar()
    source = {"gguf_file": path.name} if path.is_file() else {}
    folder = path.parent if path.is_file() else path
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **source)
        config = AutoConfig.from_pretrained(folder, **source)
        if path.is_file():
            config.update(_head_dim(path))
        model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, **source)
    except (OSError, ValueError, KeyError, struct.error) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"transformers cannot load {path}: {reason}") from error
    _forget_sampling(model, tokenizer)
    return model.eval(), tokenizer


def writer(path: Path, model: PreTrainedModel) -> LlamaCppGenerator:
    """A GGUF in llama.cpp, of which `model` is what transformers reads."""
    return LlamaCppGenerator(path, min(model.config.max_position_embeddings, _MOST_CONTEXT))


def _forget_sampling(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Answers are the likeliest here: a folder's own penalties and temperatures count for chatting."""
    from transformers import GenerationConfig

    stops = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id if stops is None else stops)


def _head_dim(path: Path) -> dict[str, int]:
    """The size of a GGUF's heads, where it says so: transformers takes the architecture's default instead."""
    from gguf import GGUFReader

    sizes = [
        field.contents() for name, field in GGUFReader(path).fields.items() if name.endswith("attention.key_length")
    ]
    return {"head_dim": int(sizes[0])} if sizes else {}


@dataclass(frozen=True)
class TransformersChatModel:
    """A model of transformers, which also reads what was said, as plain text."""

    model: Any
    tokenizer: Any
    writer: LlamaCppGenerator | None = None
    """Who answers in its place, where it came from a GGUF."""

    def __post_init__(self) -> None:
        """Prompts of a batch end together.

        Raises:
            UserError: the model has no chat template.
        """
        if not self.tokenizer.chat_template:
            raise UserError("the model has no chat template, so it cannot be asked: name --tasks that compare answers")
        self.tokenizer.padding_side = "left"
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token

    def answer(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """The likeliest next turn of each conversation."""
        template = self.tokenizer.apply_chat_template
        prompts = [template(list(each), add_generation_prompt=True, tokenize=False) for each in conversations]
        if self.writer:
            return self.writer.write(self.tokenizer(prompts, add_special_tokens=False)["input_ids"], max_new_tokens)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers = dict.fromkeys(order, Answer(""))
        with progress("answers", len(order), "answers") as bar:
            for first in range(0, len(order), _BATCH_SIZE):
                chosen = order[first : first + _BATCH_SIZE]
                said = self._answers([prompts[index] for index in chosen], max_new_tokens)
                answers |= dict(zip(chosen, said, strict=True))
                bar.advance(len(chosen))
        return [answers[index] for index in range(len(prompts))]

    @torch.no_grad()
    def _answers(self, prompts: list[str], max_new_tokens: int) -> list[Answer]:
        given = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        ids, mask = given["input_ids"], given["attention_mask"]
        room = self.model.config.max_position_embeddings - ids.shape[1]
        limit = {"max_new_tokens": min(max_new_tokens, room), "pad_token_id": self.tokenizer.pad_token_id}
        new = self.model.generate(input_ids=ids, attention_mask=mask, do_sample=False, **limit)[:, ids.shape[1] :]
        stops = self.model.generation_config.eos_token_id
        ended = torch.isin(new, torch.tensor(stops)).any(dim=1).tolist()
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [Answer(text, stopped) for text, stopped in zip(texts, ended, strict=True)]

    @torch.no_grad()
    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Bits per byte of the texts behind the token that begins or ends a text, without any question."""
        begin = self.tokenizer.bos_token_id
        first = self.tokenizer.eos_token_id if begin is None else begin
        nats = 0.0
        for text in filter(None, texts):
            ids = torch.tensor([[first, *self.tokenizer(text, add_special_tokens=False)["input_ids"]]])
            said = self.model(ids).logits[0, :-1].log_softmax(dim=-1)
            nats -= said.gather(1, ids[0, 1:, None]).double().sum().item()
        num_bytes = sum(len(text.encode()) for text in texts)
        return nats / math.log(2) / num_bytes if num_bytes else 0.0
