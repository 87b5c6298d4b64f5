"""The model: a decoder with Qwen3's graph, its initialization, and its CPU kernels."""
