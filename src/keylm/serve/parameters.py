"""The parameters of a completion: OpenAI's and llama.cpp's, each with its type and its range."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

_Share = Annotated[float, Field(ge=0, le=1)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Positive = Annotated[float, Field(ge=0, le=100)]
_Count = Annotated[int, Field(ge=-1, le=2**31 - 1)]
_Length = Annotated[int, Field(ge=1, le=2**31 - 1)]
_Text = Annotated[str, Field(max_length=10_000)]


class Parameters(BaseModel):
    """What a request may say besides its prompt; a field that is none of these is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    max_tokens: _Length | None = None
    n_predict: _Length | None = None
    stop: _Text | Annotated[list[_Text], Field(max_length=16)] | None = None
    seed: int | None = None
    ignore_eos: bool | None = None

    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_k: _Count | None = None
    top_p: _Share | None = None
    min_p: _Share | None = None
    typical_p: _Share | None = None
    dynatemp_range: _Positive | None = None
    dynatemp_exponent: _Positive | None = None
    xtc_probability: _Share | None = None
    xtc_threshold: _Share | None = None
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    mirostat_tau: _Positive | None = None
    mirostat_eta: _Share | None = None

    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    repeat_last_n: _Count | None = None
    dry_multiplier: _Positive | None = None
    dry_base: _Positive | None = None
    dry_allowed_length: _Count | None = None
    dry_penalty_last_n: _Count | None = None
    dry_sequence_breakers: Annotated[list[_Text], Field(max_length=16)] | None = None

    logit_bias: dict[str, float] | Annotated[list[tuple[int | str, float | bool]], Field(max_length=1000)] | None = None
    grammar: _Text | None = None
    json_schema: dict[str, Any] | None = None


IGNORED = ("model", "user", "metadata", "store", "stream", "stream_options", "safety_identifier", "prompt_cache_key")
"""Fields that OpenAI's clients send and that don't change the text of an answer."""
