"""llama.cpp as a library, set up for exactness rather than speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def exact_server(path: Path, num_slots: int = 1, context_length: int | None = None, num_threads: int = 1) -> Any:
    """Load a GGUF file into an `xllamacpp.Server` that computes attention and its KV cache in float32.

    Args:
        path: The GGUF file.
        num_slots: Requests that are processed at the same time.
        context_length: Tokens per request (default: the model's context length).
        num_threads: CPU threads.

    Raises:
        RuntimeError: llama.cpp cannot load the file.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = num_slots
    params.n_ctx = num_slots * (context_length or 0)  # llama.cpp divides n_ctx among the slots.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = num_threads
    params.verbosity = -1
    params.ui = False
    # Flash attention on CPUs rounds to float16, and so does the default cache.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return xllamacpp.Server(params)
