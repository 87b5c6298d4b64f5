"""Batch text generation with llama.cpp, and statistics of the answers."""
