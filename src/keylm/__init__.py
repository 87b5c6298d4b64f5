"""KeyLM: raw text in, a small chat model out."""

__version__ = "0.2.0"
