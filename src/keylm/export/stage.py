"""The export stage: everything that transformers, llama.cpp, LM Studio and Ollama need to run the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keylm.common.files import write_checksums, write_text
from keylm.gguf.locate import gguf_path, preferred_file_type
from keylm.run import Run
from keylm.stages import training_stages


def run_export(run: Run) -> dict[str, Any]:
    """Export the weights of the run's last training stage into `run.stage("export")`, and verify the result.

    Returns:
        `num_parameters`; `gguf`, the result of `measure_quantization`; `verification`, the result of `verify_export`;
        and `files`, the bytes and the SHA-256 of each file by its path.

    Raises:
        UserError: The run has no trained weights yet.
        KeyLMError: The weights are damaged, or the export failed verification.
    """
    import torch
    from safetensors.torch import load_file

    from keylm.export.examples import example_requests
    from keylm.export.model_card import render_model_card, shipped_card
    from keylm.export.ollama import write_modelfile
    from keylm.export.published_recipe import published_recipe
    from keylm.export.quantization_quality import measure_quantization
    from keylm.export.transformers_folder import write_transformers_folder
    from keylm.export.verify import verify_export
    from keylm.gguf.file import license_of, write_gguf

    stage = training_stages(run)[-1]
    folder, file_types = run.stage("export"), run.recipe.export.gguf

    # All files are made from weights that were rounded to bfloat16 once, so they hold the same model.
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(run.verified_weights(stage)).items()}
    write_transformers_folder(run, weights, folder / "transformers")
    examples = example_requests(run)
    for file_type in file_types:
        path = gguf_path(run, file_type)
        write_gguf(run.recipe, run.stage("tokenizer"), weights, file_type, path, license_of(run), examples)
    if file_types:
        best = gguf_path(run, preferred_file_type(file_types))
        write_modelfile(run.recipe, best.name, folder / "Modelfile")

    # The card reports what was measured, so it comes last. `transformers/` has a copy, to be published on its own.
    num_parameters = sum(tensor.numel() for tensor in weights.values())
    quality = measure_quantization(run, weights)
    verification = verify_export(run, weights)
    card = shipped_card(run) or render_model_card(run, num_parameters, quality, verification)
    write_text(folder / "recipe.yaml", published_recipe(run.recipe))
    write_text(folder / "README.md", card)
    write_text(folder / "transformers" / "README.md", card)
    return {
        "num_parameters": num_parameters,
        "gguf": quality,
        "verification": verification,
        "files": _write_checksums(folder),
    }


def _write_checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Write `SHA256SUMS`, and return the bytes and the SHA-256 of each exported file."""
    patterns = ("transformers/*", "*.gguf", "Modelfile", "README.md", "recipe.yaml")
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    hashes = write_checksums(folder, (path.relative_to(folder).as_posix() for path in paths))
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": digest} for name, digest in hashes.items()}
