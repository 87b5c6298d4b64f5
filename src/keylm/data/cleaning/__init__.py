"""What a document must go through before it is learned from: its characters are tidied, its personal data masked.

Or it is dropped; `docs/clean.md` lists the reasons. Duplicates, which no document shows by itself, are found by `seen`
and `near_duplicates`.
"""

from __future__ import annotations

from keylm.chat import Message
from keylm.data.cleaning import contamination
from keylm.data.cleaning.personal_data import mask
from keylm.data.cleaning.tidy import clean
from keylm.data.documents import Document
from keylm.recipe import Source
from keylm.run import Run

CONTAMINATED = "contaminated"


class Cleaner:
    """Cleans the documents of one source, in the way that the recipe asks for.

    Raises:
        UserError: the model for the language, or the data of a task to keep out of the text, cannot be had.
    """

    def __init__(self, run: Run, source: Source) -> None:
        settings = run.recipe.data.clean
        self.min_document_bytes = run.recipe.data.min_document_bytes
        self.masks = settings.personal_data == "mask"
        self.filters = []
        if settings.language_model or source.filters:
            from keylm.data.cleaning import quality

            if settings.language_model:
                self.filters.append(quality.english(settings.language_model, settings.language_score))
            self.filters.extend(map(quality.by_name, source.filters))
        self.contamination = contamination.load(run)

    def __call__(self, document: Document) -> Document | str:
        """The cleaned document, or the reason to drop it."""
        tidied = clean(document, self.min_document_bytes)
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
        return mask(text) if self.masks else text
