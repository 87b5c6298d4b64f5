"""GGUF files: their contents, their quantization, which one to load."""
