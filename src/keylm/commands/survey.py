"""A look at a source before there is a recipe: what is in it, what is left out and why, and how many tokens it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keylm.common.documents import Document, is_held_out
from keylm.common.errors import UserError
from keylm.data.cleaning.drop_log import DropLog
from keylm.data.prepare.stage import DUPLICATE
from keylm.data.prepare.workers import Unit, cleaned_documents
from keylm.data.sources.file_formats import suffix_of
from keylm.data.sources.file_selection import OTHER_FORMAT, select_files
from keylm.data.sources.progress import FULL, ReadProgress
from keylm.recipe import Recipe
from keylm.recipe.sources import FilesConfig, SourceConfig
from keylm.run import Run
from keylm.tokenizer.messages import encode_conversations
from keylm.tokenizer.tokenizer import Tokenizer
from keylm.tokenizer.training import drop_long_words, train_tokenizer

MIN_DOCUMENT_BYTES = 16
VALIDATION_FRACTION = 0.05
"""For the recipe too, so that what is counted here is what `prepare` keeps."""

_READ_BYTES = 50_000_000
"""Of a larger source the beginning is read, and the rest estimated."""
_SAMPLE_BYTES = 2_000_000
_BYTES_PER_VOCABULARY_ENTRY = 100
"""With less text per token of the vocabulary, many tokens would be seen too rarely to be learned."""
_VOCABULARIES = (8192, 4096, 2048, 1024, 512, 320)


@dataclass(frozen=True)
class Survey:
    """What is in a source."""

    source: SourceConfig
    files: dict[str, int]
    """Files that are read, by ending."""
    left_out: dict[str, int]
    """Files and documents that are left out, by reason; files of other formats by their ending."""
    documents: int
    """Documents, estimated if the source is large."""
    num_bytes: int
    """Bytes of their text, estimated if the source is large."""
    is_estimated: bool
    sample: list[Document]
    """The first documents that are trained on."""

    @property
    def sample_bytes(self) -> int:
        """Bytes of the text of the sample."""
        return sum(document.num_bytes for document in self.sample)


def survey_source(source: SourceConfig, stage: str) -> Survey:
    """Read a source as `prepare` would for `pretrain` or `sft`, or the beginning of it if it is large.

    Raises:
        UserError: it is not available, holds something that is not a document, or nothing that can be trained on.
    """
    section = {"pretrain": "data", "sft": "sft"}[stage]
    data = {"min_document_bytes": MIN_DOCUMENT_BYTES, "validation_fraction": VALIDATION_FRACTION}
    values = {"name": "survey", "data": data}
    recipe = Recipe.model_validate(values | {section: {**(data if section == "data" else {}), "sources": [source]}})
    progress, dropped = ReadProgress(), DropLog(num_samples=0)
    seen, sample = set[int](), list[Document]()
    num_bytes = sample_bytes = 0
    # The run is a place that nothing is read from or written to: cleaning as a recipe asks for looks nothing up in it.
    for item in cleaned_documents(Run(Path(), recipe), Unit(stage, source, FULL), progress, dropped):
        if item.digest in seen:
            dropped.add(DUPLICATE, "")
            continue
        seen.add(item.digest)
        num_bytes += item.num_bytes
        # Without what is held out, which the tokenizer stage does not see.
        if sample_bytes < _SAMPLE_BYTES and not is_held_out(item.digest, VALIDATION_FRACTION):
            sample.append(item.document)
            sample_bytes += item.num_bytes
        if num_bytes >= _READ_BYTES:
            break
    files, unread = _count_files(source)
    left_out = {**unread, **{reason: count for reason, count in dropped.counts.items() if reason != OTHER_FORMAT}}
    if len(seen) < 2 or not sample:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        raise UserError(
            f"the source `{source.name}` has {len(seen)} document{'s' * (len(seen) != 1)} that can be trained on"
            f"{f' (left out: {counts})' if counts else ''}: give at least two, one of them for validation"
        )
    scale = 1 / (progress.fraction or 1) if num_bytes >= _READ_BYTES else 1
    return Survey(source, files, left_out, round(len(seen) * scale), round(num_bytes * scale), scale > 1, sample)


def fit_vocabulary(surveys: Sequence[Survey], largest: int) -> Tokenizer:
    """Train the largest vocabulary, of at most `largest` tokens, that the text of the samples is enough for.

    Raises:
        UserError: it is too little for any.
    """
    texts = [drop_long_words(text)[0] for survey in surveys for item in survey.sample for text in item.contents]
    num_bytes = sum(survey.num_bytes for survey in surveys)
    for size in _VOCABULARIES:
        if size > largest or num_bytes < size * _BYTES_PER_VOCABULARY_ENTRY:
            continue
        try:
            return train_tokenizer(texts, size, "qwen2")
        except UserError:
            # The words are too few for so many tokens, however often they occur: a smaller vocabulary may do.
            continue
    raise UserError(
        f"{num_bytes:,} bytes of text are too few, or too uniform, to train a vocabulary: give at least "
        f"{_VOCABULARIES[-1] * _BYTES_PER_VOCABULARY_ENTRY:,} bytes"
    )


def count_tokens(survey: Survey, tokenizer: Tokenizer) -> int:
    """Tokens of the whole source, by those of its sample."""
    lengths = conversation_lengths(survey, tokenizer)
    texts = [document.text for document in survey.sample if document.text is not None]
    tokens = sum(lengths) + sum(len(ids) + 1 for ids in tokenizer.encode_batch(texts))
    return round(tokens * survey.num_bytes / survey.sample_bytes)


def conversation_lengths(survey: Survey, tokenizer: Tokenizer) -> list[int]:
    """Tokens of each conversation of the sample."""
    conversations = [document.messages for document in survey.sample if document.messages is not None]
    return [len(encoded.ids) + 1 for encoded in encode_conversations(tokenizer, conversations)]


def _count_files(source: SourceConfig) -> tuple[dict[str, int], dict[str, int]]:
    """The files of a source by ending, and those of other formats that are passed over."""
    if not isinstance(source, FilesConfig):
        return {}, {}
    selection = select_files([source.path] if isinstance(source.path, str) else source.path)
    files = Counter(suffix_of(path) or "" for path in selection.files)
    others = [path for path, reason in selection.left_out.items() if reason == OTHER_FORMAT]
    endings = Counter(f"{path.suffix.lower() or path.name} (not a format that is read)" for path in others)
    return dict(files.most_common()), dict(endings.most_common())
