"""Quality filters for plain text: datatrove's, with their own thresholds, and a fastText model for the language."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FastTextClassifierFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

from keylm.common.errors import UserError
from keylm.data.cleaning.datatrove_adapters import ENGLISH

NOT_ENGLISH = "not English"

Filter = Callable[[str], tuple[str, str | None]]
"""From a text to what is kept of it, and the reason to drop it, if there is one."""

_FILTERS = {
    "gopher-quality": GopherQualityFilter,
    "gopher-repetition": GopherRepetitionFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
}


def by_name(name: str) -> Filter:
    """One of a source's `filters`. Reasons are datatrove's, behind the name: `c4: curly_bracket`.

    `gopher-quality` and `gopher-repetition` are the rules of Rae et al. 2021, `c4` those of Raffel et al. 2020 (it
    also removes lines), `fineweb` those of Penedo et al. 2024.
    """
    block = _FILTERS[name](language=ENGLISH)
    return lambda text: _ask(block, text, name)


def english(model: str, least_score: float) -> Filter:
    """Only text that a fastText model takes for English (label `en`) with a probability of `least_score` or more.

    Raises:
        UserError: fastText is not installed, or `model` is not one of its models or does not know English.
    """
    path = Path(model).expanduser()
    if not path.is_file():
        raise UserError(
            f"data.clean.language_model names {path}, which is no file: give a fastText model, or leave it out"
        )
    try:
        block = FastTextClassifierFilter(
            str(path), keep_labels=("en", least_score), save_labels_in_metadata=False, newline_replacement=" "
        )
        block._model = _load(path)
    except ImportError as error:
        raise UserError(
            "data.clean.language_model needs fastText: `pip install fasttext-numpy2-wheel fasteners`, or leave it out"
        ) from error
    return lambda text: _ask(block, text, NOT_ENGLISH)


def _load(path: Path) -> Any:
    """The model, from where it lies; datatrove itself would first copy it to a cache, by name."""
    from fasttext.FastText import _FastText

    try:
        model = _FastText(str(path))
    except ValueError as error:
        raise UserError(f"data.clean.language_model: {path} is not a fastText model ({error})") from error
    if "__label__en" not in model.labels:
        raise UserError(f"data.clean.language_model: {path} has no label `en`, so it cannot tell English")
    return model


def _ask(block: Any, text: str, name: str) -> tuple[str, str | None]:
    document = Document(text=text, id="")
    answer = block.filter(document)
    kept, reason = answer if isinstance(answer, tuple) else (answer, None)
    if kept:
        return document.text, None
    return text, f"{name}: {reason}" if reason else name
