"""The GGUF files of the shipped models: made at the first use, and kept in the cache."""

from __future__ import annotations

import hashlib
import tempfile
from operator import itemgetter
from pathlib import Path

from keylm import __version__
from keylm.common.errors import KeyLMError, UserError
from keylm.common.files import CHECKSUMS, cache_folder, changed_files, sha256
from keylm.shipped import ShippedModel


def cached_gguf(model: ShippedModel, file_type: str) -> Path:
    """The GGUF of a shipped model, which is made if the cache lacks it or holds a damaged one.

    Its name has two hashes: one of what it is made from (the model's files and this version of the package), and one of
    its own content, by which damage is noticed.

    Args:
        model: The model.
        file_type: A key of `tensor_types.FILE_TYPES`.

    Raises:
        UserError: This installation lacks the model, or the cache cannot be written.
        KeyLMError: A file of the model is damaged.
    """
    made_from = (model.folder / CHECKSUMS).read_text(encoding="utf-8") + __version__
    prefix = f"{model.name}-{file_type}-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"
    for path in cache_folder().glob(f"{prefix}-*.gguf"):
        if path == _final_path(prefix, path):
            return path
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        # Several processes may make it at once: each does so in a folder of its own, and renames the result.
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            made = Path(folder) / "model.gguf"
            _write_gguf(model, file_type, made)
            return made.replace(_final_path(prefix, made))
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
    write_gguf(load_recipe(model.folder), model.folder, weights, file_type, path)


def _final_path(prefix: str, path: Path) -> Path:
    """Where a GGUF with the content of `path` belongs."""
    return cache_folder() / f"{prefix}-{sha256(path)[:16]}.gguf"
