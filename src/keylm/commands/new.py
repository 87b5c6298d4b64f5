"""`keylm new`: a recipe for one's own texts that fits this machine and the time that is asked for."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from keylm.commands.info import format_duration, seconds_per_token, training_bytes
from keylm.commands.plan import Data, Plan, epochs, make_plan
from keylm.commands.survey import (
    MIN_DOCUMENT_BYTES,
    VALIDATION_FRACTION,
    Survey,
    conversation_lengths,
    count_tokens,
    fit_vocabulary,
    survey_source,
)
from keylm.common.console import console, output
from keylm.common.errors import UserError
from keylm.common.files import write_text
from keylm.common.hardware import busy_cores, physical_cores, resident_memory_bytes
from keylm.common.units import gib
from keylm.evaluate.bits_per_byte import xz_bits
from keylm.instructions.backtranslation.generate import generate_conversations
from keylm.model.flops import num_parameters
from keylm.model.initialization import init_model
from keylm.recipe import Recipe, load_recipe
from keylm.recipe.model import ModelConfig
from keylm.recipe.sources import BacktranslationConfig, FilesConfig, InstalledDocsConfig, SourceConfig
from keylm.recipe.train import TrainConfig
from keylm.tokenizer.tokenizer import Tokenizer

_OWN_SHARE = 0.6
"""Share of the user's text where generated instructions make up the rest, which teach a model to answer."""
_MIN_REQUESTS = 50
"""Fewer requests than this for excerpts of the sample are not worth a source."""
_TOKENS_PER_INSTRUCTION = 48
_SMALL_VOCABULARY, _LARGE_VOCABULARY, _LONG_MINUTES = 4096, 8192, 60
"""The vocabulary of a training of minutes and of hours: the head of a small model is most of its work."""
_SEQUENCE_LENGTHS = (512, 1024, 2048)
_LONG_FRACTION = 0.05
"""Conversations that may be longer than the sequences, which training cuts."""
_MAX_SAMPLE_BYTES = 20_000_000
_SPARE = 1.5
"""A source that holds more than so many times what training reads of it is read in part."""
_BUSY_CORES = 0.3
"""Cores in use by other programs that make a machine a busy one."""


def ask_for_text() -> list[str]:
    """Ask for a file or folder of text; none if the answer is empty.

    Raises:
        UserError: there is no terminal to ask at.
    """
    if not sys.stdin.isatty():
        raise UserError("name your texts with --text PATH, a file, a folder or a pattern")
    answer = console.input("Your texts, a file or folder (Enter: the documentation on this machine): ").strip()
    return [answer] if answer else []


def write_new_recipe(name: str, text: Sequence[str], chat: Sequence[str], minutes: float) -> Path:
    """Look at the data, measure the machine, and write the recipe `NAME.yaml` into the working directory.

    Args:
        name: Name of the model.
        text: Files, folders or glob patterns of text; the documentation on this machine if there are none.
        chat: Files, folders or glob patterns of conversations; they are generated if there are none.
        minutes: Time that all stages may take.

    Raises:
        UserError: the name or the data cannot be used, or the recipe is there already.
    """
    path = _recipe_path(name)
    look = _look_at_data(text, chat, _LARGE_VOCABULARY if minutes >= _LONG_MINUTES else _SMALL_VOCABULARY)
    busy = busy_cores()
    console.print("  measures how fast this machine trains ...")
    plan = make_plan(look.data, look.tokenizer.vocab_size, look.sequence_length, minutes, _measure)
    remarks = _remarks(look, plan, busy, minutes)
    write_text(path, _recipe_text(name, _command(name, text, chat, minutes), look, plan, remarks))
    load_recipe(path)
    _show(remarks)
    output.print(f"[green]✓[/] {path}   train it with `keylm run {path}`")
    return path


@dataclass(frozen=True)
class _Look:
    """What a look at the data showed."""

    text: Survey
    chat: Survey | None
    tokenizer: Tokenizer
    data: Data
    sequence_length: int
    num_too_long: int
    """Conversations of the sample that training will cut."""
    has_requests: bool
    """Whether requests can be written for excerpts of the text."""

    @property
    def surveys(self) -> list[Survey]:
        """Those of the user's own sources."""
        return [self.text, *([self.chat] if self.chat else [])]


def _recipe_path(name: str) -> Path:
    try:
        Recipe.model_validate({"name": name})
    except ValidationError as error:
        raise UserError(f"the name `{name}` may have lowercase letters, digits, `.`, `_` and `-` only") from error
    path = Path(f"{name}.yaml")
    if path.exists():
        raise UserError(f"{path} is there already: change it, delete it, or choose another name")
    return path


def _look_at_data(text: Sequence[str], chat: Sequence[str], largest_vocabulary: int) -> _Look:
    text_source: SourceConfig = FilesConfig(name="text", path=list(text)) if text else _installed_docs()
    chat_source = FilesConfig(name="chat", path=list(chat), category="conversational") if chat else None
    console.print("  looks at the data ...")
    text_survey = survey_source(text_source, "pretrain")
    chat_survey = survey_source(chat_source, "sft") if chat_source else None
    surveys = [text_survey, *([chat_survey] if chat_survey else [])]
    tokenizer = fit_vocabulary(surveys, largest_vocabulary)
    chat_lengths = conversation_lengths(chat_survey, tokenizer) if chat_survey else []
    length = _sequence_length(chat_lengths)
    return _Look(
        text=text_survey,
        chat=chat_survey,
        tokenizer=tokenizer,
        data=Data(
            tokens=sum(count_tokens(survey, tokenizer) for survey in surveys),
            share=1.0 if chat else _OWN_SHARE,
            sft_tokens=count_tokens(chat_survey, tokenizer) if chat_survey else None,
        ),
        sequence_length=length,
        num_too_long=sum(size > length for size in chat_lengths),
        has_requests=not chat and _gives_requests(text_survey),
    )


def _installed_docs() -> InstalledDocsConfig:
    return InstalledDocsConfig(name="text", max_documents=4500)


def _sequence_length(lengths: Sequence[int]) -> int:
    """The shortest sequences that hold nearly all conversations whole."""
    return next(
        (size for size in _SEQUENCE_LENGTHS if sum(n > size for n in lengths) <= _LONG_FRACTION * len(lengths)),
        _SEQUENCE_LENGTHS[-1],
    )


def _gives_requests(survey: Survey) -> bool:
    """Whether the rules find subjects in the text, of which they know only English ones."""
    if not isinstance(survey.source, FilesConfig):
        return False
    source = BacktranslationConfig(name="requests", from_source=survey.source)
    conversations = generate_conversations(iter(survey.sample), source, seed=0)
    return sum(1 for _, _ in zip(conversations, range(_MIN_REQUESTS), strict=False)) == _MIN_REQUESTS


def _measure(model: ModelConfig, training: TrainConfig) -> float:
    return seconds_per_token(init_model(model, seed=0), training)


def _remarks(look: _Look, plan: Plan, busy: float, minutes: float) -> dict[str, str]:
    """What was found and what is expected, in a line or two for each subject; for the screen and the recipe."""
    model = init_model(plan.model, seed=0)
    training = TrainConfig.model_validate(_step_fields(plan.batch_tokens, plan))
    sample = "\n\n".join(document.plain for survey in look.surveys for document in survey.sample).encode()
    memory = gib(resident_memory_bytes() + training_bytes(model, training))
    remarks = {survey.source.name: _describe(survey, look.tokenizer) for survey in look.surveys}
    if look.num_too_long:
        remarks["chat"] += f"; {look.num_too_long:,} are longer than {look.sequence_length:,} tokens and will be cut"
    cores = physical_cores()
    machine = f"{cores} core{'s' * (cores > 1)}, {plan.tokens_per_second:,.0f} tokens/s at this size"
    if busy > _BUSY_CORES:
        machine += f"; other programs keep {busy:.1f} cores busy, so it may take longer"
    times = epochs(plan, look.data)
    length = f"{plan.tokens:,} tokens of pretraining (your text {times:.1f} times), {plan.sft_tokens:,} of SFT"
    if plan.seconds < 30 * minutes:
        length += "; to read so little text more often would be to learn it by heart, so it ends before your time is up"
    return {
        **remarks,
        "machine": machine,
        "model": f"{num_parameters(model) / 1e6:.1f}M parameters, vocabulary of {plan.model.vocab_size:,}",
        "length": length,
        "expected": f"{format_duration(plan.seconds)}, {memory} of memory, about {plan.bits_per_byte:.1f} bits "
        f"per byte (a guess of the scaling law; xz -9e: {xz_bits(sample) / len(sample):.1f})",
    }


def _describe(survey: Survey, tokenizer: Tokenizer) -> str:
    about = "about " if survey.is_estimated else ""
    files = ", ".join(f"{count:,} {ending}" for ending, count in survey.files.items())
    tokens = count_tokens(survey, tokenizer)
    described = f"{about}{survey.documents:,} documents, {_megabytes(survey.num_bytes)}, {tokens:,} tokens"
    if files:
        described += f" (files: {files})"
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in survey.left_out.items())
    return f"{described}; left out: {left_out}" if left_out else described


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:,.1f} kB"


def _show(remarks: dict[str, str]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for subject, remark in remarks.items():
        table.add_row(subject, escape(remark))
    output.print(table)


def _command(name: str, text: Sequence[str], chat: Sequence[str], minutes: float) -> str:
    paths = [part for path in text for part in ("--text", path)] + [part for path in chat for part in ("--chat", path)]
    return shlex.join(["keylm", "new", name, *paths, "--minutes", f"{minutes:g}"])


def _step_fields(batch_tokens: int, plan: Plan) -> dict[str, int]:
    length = plan.model.max_position_embeddings
    return {"batch_tokens": batch_tokens, "micro_batch_tokens": batch_tokens, "sequence_length": length}


def _recipe_text(name: str, command: str, look: _Look, plan: Plan, remarks: dict[str, str]) -> str:
    """The recipe as YAML, with comments."""
    header = [f"Made by `{command}`. docs/recipe.md explains every key.", *(f"{k}: {v}" for k, v in remarks.items())]
    sizes = plan.model.model_dump(exclude={"rope_theta", "rms_norm_eps", "initialization"})
    share = look.data.share
    steps, sft_steps = _step_fields(plan.batch_tokens, plan), _step_fields(plan.sft_batch_tokens, plan)
    lines = [
        *(part for line in header for part in textwrap.wrap(line, 118, initial_indent="# ", subsequent_indent="#   ")),
        f"name: {name}",
        "model:",
        *_fields(sizes),
        f"tokenizer: {{sample_bytes: {_sample_bytes(look)}}}",
        "data:",
        f"  validation_fraction: {VALIDATION_FRACTION}",
        f"  min_document_bytes: {MIN_DOCUMENT_BYTES}",
        "  # `weight` is a source's share of the training tokens; docs/sources.md lists the types.",
        "  sources:",
        *(_own_source(survey, look, plan) for survey in look.surveys),
        *([] if look.chat else [_instructions(plan.tokens * (1 - share), 1 - share)]),
        "train:",
        *_fields({"tokens": plan.tokens, **steps, "warmup_fraction": 0.03, "decay_fraction": 0.5}),
        "  optimizer: {weight_decay: 0.01}",
        "sft:",
        *_fields({"tokens": plan.sft_tokens, **sft_steps, "warmup_fraction": 0.03, "decay_fraction": 0.8}),
        "  optimizer: {learning_rate_scale: 0.75, weight_decay: 0.01}",
        "  sources:",
        *_sft_sources(look, plan),
        "eval:",
        "  # Generated instructions are graded only where they are taught; 0 measures nothing.",
        *_fields({"instructions": 0 if look.chat else 100, "typo_passages": 0, "typo_instructions": 0}),
        "export:",
        "  # Small models repeat themselves without a penalty, unless they were taught to name their topic again.",
        *_fields({"temperature": 0.3, "repetition_penalty": 1.1 if look.chat else 1.0}),
    ]
    return "\n".join(lines) + "\n"


def _sample_bytes(look: _Look) -> int:
    """So much that the user's text gives all it has, and generated text no more than its share."""
    return min(round(sum(survey.num_bytes for survey in look.surveys) / look.data.share), _MAX_SAMPLE_BYTES)


def _own_source(survey: Survey, look: _Look, plan: Plan) -> str:
    """The user's source in pretraining; each is read equally often."""
    part = count_tokens(survey, look.tokenizer) / look.data.tokens
    fields = {**_source_fields(survey), "weight": round(max(part * look.data.share, 0.001), 3)}
    needed = survey.num_bytes * epochs(plan, look.data) * _SPARE
    if needed < survey.num_bytes:
        # What is never trained on need not be tokenized.
        fields["max_bytes"] = round(needed)
    return _flow(fields)


def _sft_sources(look: _Look, plan: Plan) -> list[str]:
    if look.chat:
        return [_flow({**_source_fields(look.chat), "weight": 1.0})]
    if not look.has_requests:
        return [_instructions(plan.sft_tokens, 1.0)]
    requests = {"name": "requests", "type": "backtranslation", "category": "instructions", "weight": 0.4}
    return [
        "    # Excerpts of your text as answers, with requests that rules write for them.",
        _flow({**requests, "from_source": _source_fields(look.text)}),
        _instructions(plan.sft_tokens * 0.6, 0.6),
    ]


def _source_fields(survey: Survey) -> dict[str, Any]:
    fields = survey.source.model_dump(exclude_defaults=True)
    return {"name": survey.source.name, "type": survey.source.type, **fields}


def _instructions(tokens: float, weight: float) -> str:
    """Generated requests and answers, no more of them than training reads."""
    count = max(2000, round(tokens / _TOKENS_PER_INSTRUCTION))
    fields = {"name": "instructions", "type": "instructions", "category": "instructions", "num_documents": count}
    return _flow({**fields, "weight": round(weight, 3)})


def _fields(values: dict[str, Any]) -> list[str]:
    return [f"  {key}: {value}" for key, value in values.items()]


def _flow(fields: dict[str, Any]) -> str:
    """An item of a list of sources, on one line."""
    return f"    - {_flow_mapping(fields)}"


def _flow_mapping(fields: dict[str, Any]) -> str:
    # JSON is YAML, and quotes what a path may hold.
    values = {key: _flow_mapping(v) if isinstance(v, dict) else _flow_value(v) for key, v in fields.items()}
    return "{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"


def _flow_value(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        return _flow_value(value[0])
    if isinstance(value, str) and value.replace("-", "").isalnum():
        return value
    return json.dumps(value, ensure_ascii=False)
