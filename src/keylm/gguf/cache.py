"""The GGUF files of the shipped models: made at the first use, and kept in the cache."""

from __future__ import annotations

import hashlib
from functools import partial
from operator import itemgetter
from pathlib import Path

from keylm import __version__
from keylm.common.errors import KeyLMError, UserError
from keylm.common.file_cache import cached_file
from keylm.common.files import CHECKSUMS, cache_folder, changed_files
from keylm.shipped import ShippedModel


def cached_gguf(model: ShippedModel, file_type: str) -> Path:
    """The GGUF of a shipped model, which is made if the cache lacks it or holds a damaged one.

    Its name has a hash of what it is made from: the model's files and this version of the package.

    Args:
        model: The model.
        file_type: A key of `tensor_types.FILE_TYPES`.

    Raises:
        UserError: This installation lacks the model, or the cache cannot be written.
        KeyLMError: A file of the model is damaged.
    """
    made_from = (model.folder / CHECKSUMS).read_text(encoding="utf-8") + __version__
    name = f"{model.name}-{file_type}-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"
    try:
        return cached_file(name, ".gguf", partial(_write_gguf, model, file_type))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write the GGUF of {model.name} to {cache_folder()} ({reason}): "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error


def _write_gguf(model: ShippedModel, file_type: str, path: Path) -> None:
    """Convert a shipped model. Nothing here imports torch, which takes longer to load than this does to run."""
    import numpy as np
    from safetensors import deserialize

    from keylm.gguf.file import write_gguf
    from keylm.recipe import load_recipe

    if changed := changed_files(model.folder):
        raise KeyLMError(
            f"{model.folder / changed[0]} is damaged: its hash is not that of {CHECKSUMS}; reinstall keylm"
        )
    tensors = deserialize((model.folder / "model.safetensors").read_bytes())  # type: ignore[no-untyped-call]
    weights = {}
    # Sorted, because `deserialize` lists them in another order each time.
    for name, tensor in sorted(tensors, key=itemgetter(0)):
        assert tensor["dtype"] == "BF16"
        # bfloat16, which numpy lacks, is the upper half of a float32.
        upper_half = np.frombuffer(tensor["data"], np.uint16).astype(np.uint32)
        weights[name] = (upper_half << 16).view(np.float32).reshape(tensor["shape"])
    recipe = load_recipe(model.folder)
    write_gguf(recipe, model.folder, weights, file_type, path, examples=recipe.export.examples)
