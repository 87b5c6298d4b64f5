"""llama.cpp as a library: how many threads it is given, and a server of its that is as exact as it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def exact_server(path: Path, num_slots: int = 1, context_length: int | None = None, num_threads: int = 1) -> Any:
    """A GGUF as an `xllamacpp.Server` that rounds nothing but the weights: attention and its cache are float32.

    It answers up to `num_slots` requests at once, each with `context_length` tokens (by default the model's own).

    Raises:
        RuntimeError: llama.cpp cannot load the file.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = num_slots
    params.n_ctx = num_slots * (context_length or 0)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = num_threads
    params.verbosity = -1
    params.ui = False
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return xllamacpp.Server(params)
