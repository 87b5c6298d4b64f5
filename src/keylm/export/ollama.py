"""Ollama's Modelfile.

The chat template and the stop tokens are written out, because Ollama guesses them otherwise, often wrongly.
"""

from __future__ import annotations

from pathlib import Path

from keylm.common.files import write_text
from keylm.recipe import Recipe
from keylm.tokenizer.tokenizer import END_OF_TEXT, TURN_END

TEMPLATE = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
"""`keylm.tokenizer.chat_template.CHAT_TEMPLATE` as a Go template, always with the generation prompt."""


def write_modelfile(recipe: Recipe, gguf_name: str, path: Path) -> None:
    """Write a Modelfile to `path` that refers to the GGUF named `gguf_name` in the same folder."""
    parameters = {
        "num_ctx": recipe.model.max_position_embeddings,
        "temperature": recipe.export.temperature,
        "repeat_penalty": recipe.export.repetition_penalty,
    }
    lines = [
        f"FROM ./{gguf_name}",
        f'TEMPLATE """{TEMPLATE}"""',
        *(f'PARAMETER stop "{token}"' for token in (TURN_END, END_OF_TEXT)),
        *(f"PARAMETER {name} {value}" for name, value in parameters.items()),
    ]
    write_text(path, "\n".join(lines) + "\n")
