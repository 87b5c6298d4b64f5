"""Typos: the error model, and the documents that are made with it."""
