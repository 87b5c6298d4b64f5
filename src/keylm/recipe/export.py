"""`export`: what is released."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from keylm.recipe.base import Config


class ExportConfig(Config):
    """What is released."""

    gguf: list[Literal["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q4_K_M", "Q4_0"]] = ["F16", "Q8_0"]
    """GGUF files to write, by llama.cpp's names."""
    temperature: float = Field(default=0.7, ge=0)
    """Default sampling temperature of the release."""
    repetition_penalty: float = Field(default=1.1, ge=1)
    """Default repetition penalty; models this small repeat themselves without one."""
