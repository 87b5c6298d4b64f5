"""GGUF files: writing and reading them, quantization, choosing which one to load."""
