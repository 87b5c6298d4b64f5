"""Cleaning of one document: normalization, language, quality, personal data, decontamination; see `docs/clean.md`.

Duplicates, which no document shows by itself, are found by `deduplication` and `near_duplicates`.
"""

from __future__ import annotations

from keylm.common.documents import Document
from keylm.data.cleaning.decontamination import load_decontaminator
from keylm.data.cleaning.normalization import normalize_document
from keylm.data.cleaning.personal_data import mask_personal_data
from keylm.recipe.sources import SourceConfig
from keylm.run import Run

CONTAMINATED = "contaminated"


class Cleaner:
    """Cleans the documents of one source as the recipe asks.

    Raises:
        UserError: the language model, or the data of a decontamination task, is not available.
    """

    def __init__(self, run: Run, source: SourceConfig) -> None:
        settings = run.recipe.data.clean
        self.min_document_bytes = run.recipe.data.min_document_bytes
        self.masks_personal_data = settings.personal_data == "mask"
        self.filters = []
        if settings.language_model or source.filters:
            # Imported here, because most recipes use no filter and datatrove is slow to import.
            from keylm.data.cleaning import quality

            if settings.language_model:
                self.filters.append(quality.language_filter(settings.language_model, settings.language_score))
            self.filters.extend(map(quality.quality_filter, source.filters))
        self.decontaminator = load_decontaminator(run)

    def __call__(self, document: Document) -> Document | str:
        """The cleaned document, or the reason to drop it."""
        normalized = normalize_document(document, self.min_document_bytes)
        if isinstance(normalized, str):
            return normalized
        if normalized.messages is None:
            text = normalized.text or ""
            for text_filter in self.filters:
                text, reason = text_filter(text)
                if reason:
                    return reason
            cleaned = Document(text=self._mask(text))
        else:
            cleaned = Document(
                messages=tuple(
                    {"role": message["role"], "content": self._mask(message["content"])}
                    for message in normalized.messages
                )
            )
        # A conversation is checked as one text, since a question and its answer may be in different messages.
        task = self.decontaminator.contaminating_task(cleaned.plain) if self.decontaminator else None
        return f"{CONTAMINATED}: {task}" if task else cleaned

    def _mask(self, text: str) -> str:
        return mask_personal_data(text) if self.masks_personal_data else text
