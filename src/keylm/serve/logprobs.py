"""Likelihoods of tokens in the two shapes of OpenAI's API. llama.cpp's entries have that of chat completions."""

from __future__ import annotations

import itertools
from typing import Any

Entry = dict[str, Any]
"""A token (`token`, `bytes`, `logprob`) with its likeliest alternatives (`top_logprobs`), as llama.cpp reports it. The
first token of a prompt, before which nothing stands, has no `logprob`."""


def chat_logprobs(entries: list[Entry], num_top: int) -> dict[str, Any]:
    """Return the likelihoods of an answer for `/v1/chat/completions`, with the `num_top` likeliest tokens at each."""
    content = [
        {**_token(entry), "top_logprobs": list(map(_token, entry["top_logprobs"][:num_top]))} for entry in entries
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(entries: list[Entry], num_top: int) -> dict[str, Any]:
    """Return the likelihoods of a text for `/v1/completions`: a list for each property of its tokens.

    The `num_top` likeliest tokens come with the one that was taken, as from OpenAI.
    """
    tokens = [_text(entry) for entry in entries]
    top = [
        {_text(token): token["logprob"] for token in [*entry["top_logprobs"][:num_top], entry]}
        if entry["logprob"] is not None
        else None
        for entry in entries
    ]
    return {
        "tokens": tokens,
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": top if num_top else None,
        "text_offset": list(itertools.accumulate(map(len, tokens[:-1]), initial=0)) if tokens else [],
    }


def _token(entry: Entry) -> Entry:
    return {"token": _text(entry), "logprob": entry["logprob"], "bytes": entry["bytes"]}


def _text(entry: Entry) -> str:
    """The text of a token; a part of a character is written as OpenAI writes it, such as `bytes:\\xe2\\x80`."""
    content = bytes(entry["bytes"])
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
