"""What a document must go through before it is learned from: its characters are tidied, its personal data masked.

Or it is dropped; `docs/clean.md` lists the reasons. Duplicates, which no document shows by itself, are found by `seen`
and `near_duplicates`.
"""

from __future__ import annotations

from keylm.common.documents import Document, Message
from keylm.data.cleaning.decontamination import load_decontaminator
from keylm.data.cleaning.normalization import normalize_document
from keylm.data.cleaning.personal_data import mask_personal_data
from keylm.recipe.sources import SourceConfig
from keylm.run import Run

CONTAMINATED = "contaminated"


class Cleaner:
    """Cleans the documents of one source, in the way that the recipe asks for.

    Raises:
        UserError: the model for the language, or the data of a task to keep out of the text, cannot be had.
    """

    def __init__(self, run: Run, source: SourceConfig) -> None:
        settings = run.recipe.data.clean
        self.min_document_bytes = run.recipe.data.min_document_bytes
        self.masks = settings.personal_data == "mask"
        self.filters = []
        if settings.language_model or source.filters:
            from keylm.data.cleaning import quality

            if settings.language_model:
                self.filters.append(quality.english(settings.language_model, settings.language_score))
            self.filters.extend(map(quality.by_name, source.filters))
        self.contamination = load_decontaminator(run)

    def __call__(self, document: Document) -> Document | str:
        """The cleaned document, or the reason to drop it."""
        tidied = normalize_document(document, self.min_document_bytes)
        if isinstance(tidied, str):
            return tidied
        if tidied.messages is not None:
            cleaned = Document(messages=self._clean_messages(tidied.messages))
        else:
            text, reason = self._filter(tidied.text or "")
            if reason:
                return reason
            cleaned = Document(text=self._mask(text))
        task = self.contamination.task(cleaned.plain) if self.contamination else None
        return f"{CONTAMINATED}: {task}" if task else cleaned

    def _filter(self, text: str) -> tuple[str, str | None]:
        """What the filters leave of a text, and the reason of the first that drops it."""
        for ask in self.filters:
            text, reason = ask(text)
            if reason:
                return text, reason
        return text, None

    def _clean_messages(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        return tuple({"role": turn["role"], "content": self._mask(turn["content"])} for turn in messages)

    def _mask(self, text: str) -> str:
        return mask_personal_data(text) if self.masks else text
