"""`export`: what is released."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from keylm.recipe.base import Config


class ExportConfig(Config):
    """What is released."""

    license: str = ""
    """License of the weights, as an identifier of the Hugging Face hub such as `apache-2.0`. Empty: the card states
    none."""
    author: str = ""
    """Who made the model, for the card and the GGUF files."""
    description: str = ""
    """What the model is for and what is special about it, as a paragraph for the card."""
    language: list[str] = []
    """Languages of the model, as codes such as `en`."""
    examples: list[str] = []
    """Requests that the chat page suggests. Empty: up to three held-out requests that the model follows."""
    gguf: list[Literal["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q4_K_M", "Q4_0"]] = ["F16", "Q8_0"]
    """GGUF files to write, by llama.cpp's names."""
    temperature: float = Field(default=0.7, ge=0)
    """Default sampling temperature of the release."""
    repetition_penalty: float = Field(default=1.1, ge=1)
    """Default repetition penalty; models this small repeat themselves without one."""
