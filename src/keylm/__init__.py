"""KeyLM: raw text in, a small chat model out."""

from importlib.metadata import version

__version__ = version("keylm")
