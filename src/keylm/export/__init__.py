"""The release: what a run hands to transformers, llama.cpp, LM Studio and Ollama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keylm.errors import UserError
from keylm.evaluate.provenance import sha256
from keylm.run import Run, write_text

CHECKSUMS = "SHA256SUMS"


def build(run: Run) -> dict[str, Any]:
    """Write every release of the run's last weights into `run.stage("export")`.

    The weights are rounded to bfloat16 once and every file is made of those, so all releases are the same model.
    Returns the number of parameters, and the bytes and the SHA-256 of each file.

    Raises:
        UserError: the run does not have them yet.
    """
    import torch
    from safetensors.torch import load_file

    from keylm.export import card, fidelity, gguf, huggingface, mixtures, ollama, proof

    stage = run.last_training
    if not run.weights(stage).exists():
        raise UserError(f"{run.folder} has no trained weights to export: run `keylm {stage} {run.folder}` first")
    folder = run.stage("export")
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(run.weights(stage)).items()}
    num_parameters = sum(tensor.numel() for tensor in weights.values())

    huggingface.write(run, weights, folder / "transformers")
    for kind in run.recipe.export.gguf:
        gguf.write(run, weights, kind, gguf_path(run, kind))
    if run.recipe.export.gguf:
        best = mixtures.best_kind(run.recipe.export.gguf)
        ollama.write(run.recipe, gguf_path(run, best).name, folder / "Modelfile")
    quality, checked = fidelity.measure(run, weights), proof.check(run, weights)
    for place in (folder, folder / "transformers"):
        write_text(place / "README.md", card.text(run, num_parameters, quality, checked))
    return {"num_parameters": num_parameters, "gguf": quality, "checked": checked, "files": _write_checksums(folder)}


def gguf_path(run: Run, kind: str) -> Path:
    """The GGUF file of a run's export, by its kind."""
    return run.stage("export") / f"{run.recipe.name}-{kind}.gguf"


def best_to_run(ggufs: list[Path]) -> Path:
    """The one of several GGUF files to chat with, by the kind in its name."""
    from keylm.export.mixtures import best_kind

    kinds = {path.stem.rpartition("-")[2]: path for path in sorted(ggufs)}
    return kinds[best_kind(kinds)]


def _write_checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Write `SHA256SUMS` over all released files, as `sha256sum -c` reads it; return the same as facts."""
    released = [*folder.glob("transformers/*"), *folder.glob("*.gguf"), *folder.glob("Modelfile"), folder / "README.md"]
    facts = {path.relative_to(folder).as_posix(): _facts_of(path) for path in sorted(released)}
    write_text(folder / CHECKSUMS, "".join(f"{fact['sha256']}  {name}\n" for name, fact in facts.items()))
    return facts


def _facts_of(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}
