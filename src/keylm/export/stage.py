"""The release: what a run hands to transformers, llama.cpp, LM Studio and Ollama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keylm.common.errors import UserError
from keylm.common.files import sha256, write_text
from keylm.gguf.locate import gguf_path
from keylm.run import Run
from keylm.stages import training_stages

CHECKSUMS = "SHA256SUMS"


def run_export(run: Run) -> dict[str, Any]:
    """Write every release of the run's last weights into `run.stage("export")`.

    The weights are rounded to bfloat16 once and every file is made of those, so all releases are the same model.
    Returns the number of parameters, and the bytes and the SHA-256 of each file.

    Raises:
        UserError: the run does not have them yet.
    """
    import torch
    from safetensors.torch import load_file

    from keylm.export.model_card import render_model_card
    from keylm.export.ollama import write_modelfile
    from keylm.export.quantization_quality import measure_quantization
    from keylm.export.transformers_folder import write_transformers_folder
    from keylm.export.verify import verify_export
    from keylm.gguf.file import write_gguf
    from keylm.gguf.tensor_types import best_type

    stage = training_stages(run)[-1]
    if not run.weights(stage).exists():
        raise UserError(f"{run.folder} has no trained weights to export: run `keylm {stage} {run.folder}` first")
    folder = run.stage("export")
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(run.weights(stage)).items()}
    num_parameters = sum(tensor.numel() for tensor in weights.values())

    write_transformers_folder(run, weights, folder / "transformers")
    for kind in run.recipe.export.gguf:
        write_gguf(run, weights, kind, gguf_path(run, kind))
    if run.recipe.export.gguf:
        best = best_type(run.recipe.export.gguf)
        write_modelfile(run.recipe, gguf_path(run, best).name, folder / "Modelfile")
    quality, checked = measure_quantization(run, weights), verify_export(run, weights)
    for place in (folder, folder / "transformers"):
        write_text(place / "README.md", render_model_card(run, num_parameters, quality, checked))
    return {"num_parameters": num_parameters, "gguf": quality, "checked": checked, "files": _write_checksums(folder)}


def _write_checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Write `SHA256SUMS` over all released files, as `sha256sum -c` reads it; return the same as facts."""
    released = [*folder.glob("transformers/*"), *folder.glob("*.gguf"), *folder.glob("Modelfile"), folder / "README.md"]
    facts = {path.relative_to(folder).as_posix(): _facts_of(path) for path in sorted(released)}
    write_text(folder / CHECKSUMS, "".join(f"{fact['sha256']}  {name}\n" for name, fact in facts.items()))
    return facts


def _facts_of(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}
