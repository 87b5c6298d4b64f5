"""Talking to a released model: llama.cpp as the engine, in the terminal, over HTTP and on a web page."""
