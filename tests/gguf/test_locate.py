"""The choice of the GGUF file to load."""

from __future__ import annotations

from pathlib import Path

from keylm.gguf.locate import preferred_gguf


def test_q8_0_is_preferred_for_chatting() -> None:
    paths = [Path(f"m-{file_type}.gguf") for file_type in ("F32", "F16", "Q8_0", "Q4_0")]
    assert preferred_gguf(paths).name == "m-Q8_0.gguf"
    assert preferred_gguf(paths[:2]).name == "m-F16.gguf"


def test_a_name_without_a_file_type_comes_last() -> None:
    assert preferred_gguf([Path("model.gguf"), Path("m-Q4_0.gguf")]).name == "m-Q4_0.gguf"
    assert preferred_gguf([Path("model.gguf")]).name == "model.gguf"
