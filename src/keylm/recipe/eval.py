"""`eval`: what is measured after training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from keylm.common.errors import UserError
from keylm.common.files import unset_variable
from keylm.recipe.base import Config, Count, PositiveCount


class EvalConfig(Config):
    """What is measured after training."""

    renamed_keys: ClassVar[dict[str, str]] = {"answers": "num_answers"}

    instructions: Count = 200
    """Held-out generated instructions per split (unseen phrasings, unseen topics)."""
    max_new_tokens: PositiveCount = 160
    """Tokens after which an answer is cut off."""
    repetition_penalty: float = Field(default=1.0, ge=1)
    """Repetition penalty of the answers, which are greedy: that of the release is `export.repetition_penalty`."""
    num_answers: Count = 100
    """Held-out answers of each SFT source whose bits per byte are measured."""
    bits_per_byte_bytes: Count = 1_000_000
    """Bytes of each source's validation text to score, also by `xz -9e`."""
    typo_passages: Count = 200
    """Held-out passages scored with a mistyped beginning, to measure typo robustness."""
    typo_instructions: Count = 60
    """Held-out requests that are repeated with typos."""
    tasks: list[str] = []
    """lm_eval tasks, such as `hellaswag`."""
    limit: PositiveCount | None = None
    """Documents per lm_eval task (all by default)."""
    data: str | None = None
    """Folder with the data files of those tasks, for offline use; `~` and `$NAME` are expanded. From the hub by
    default."""

    @property
    def data_folder(self) -> Path | None:
        """The folder `data`; None: the data come from the hub.

        Raises:
            UserError: it names an environment variable that is not set.
        """
        if self.data and (unset := unset_variable(self.data)):
            raise UserError(f"`eval.data` is {self.data}, and the environment variable {unset} is not set: set it")
        return Path(os.path.expandvars(self.data)).expanduser() if self.data else None
