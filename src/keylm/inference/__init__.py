"""Batch text generation, llama.cpp as a library, and statistics of the answers."""
