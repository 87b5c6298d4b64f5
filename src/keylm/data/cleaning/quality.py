"""Filters for plain text: datatrove's quality filters with their own thresholds, and language identification."""

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

TextFilter = Callable[[str], tuple[str, str | None]]
"""From a text to what is left of it, and the reason to drop it, if there is one."""

_QUALITY_FILTERS = {
    "gopher-quality": GopherQualityFilter,
    "gopher-repetition": GopherRepetitionFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
}


def quality_filter(name: str) -> TextFilter:
    """One of the `filters` of a source. The reason is datatrove's, after the filter's name: `c4: curly_bracket`.

    `gopher-quality` and `gopher-repetition` are the rules of Rae et al. 2021, `c4` those of Raffel et al. 2020 (which
    also remove lines), `fineweb` those of Penedo et al. 2024.
    """
    step = _QUALITY_FILTERS[name](language=ENGLISH)
    return lambda text: _apply(step, text, name)


def language_filter(model: str, min_score: float) -> TextFilter:
    """Drops text that a fastText model does not identify as English (label `en`) with probability `min_score` or more.

    Raises:
        UserError: fastText is not installed, or `model` is not one of its models or has no label `en`.
    """
    path = Path(model).expanduser()
    if not path.is_file():
        raise UserError(
            f"data.clean.language_model names {path}, which is no file: give a fastText model, or leave it out"
        )
    try:
        # fastText refuses line ends: it predicts one line at a time.
        step = FastTextClassifierFilter(
            str(path), keep_labels=("en", min_score), save_labels_in_metadata=False, newline_replacement=" "
        )
        # datatrove itself would first copy the model into a cache, by its file name.
        step._model = _load_fasttext(path)
    except ImportError as error:
        raise UserError(
            "data.clean.language_model needs fastText: `pip install fasttext-numpy2-wheel fasteners`, or leave it out"
        ) from error
    return lambda text: _apply(step, text, NOT_ENGLISH)


def _load_fasttext(path: Path) -> Any:
    from fasttext.FastText import _FastText

    try:
        model = _FastText(str(path))
    except ValueError as error:
        raise UserError(f"data.clean.language_model: {path} is not a fastText model ({error})") from error
    if "__label__en" not in model.labels:
        raise UserError(f"data.clean.language_model: {path} has no label `en`, so it cannot tell English")
    return model


def _apply(step: Any, text: str, name: str) -> tuple[str, str | None]:
    """A datatrove filter as a `TextFilter`: it returns a bool or (bool, reason), and may change the document."""
    document = Document(text=text, id="")
    result = step.filter(document)
    is_kept, reason = result if isinstance(result, tuple) else (result, None)
    if is_kept:
        return document.text, None
    return text, f"{name}: {reason}" if reason else name
