"""`model`: the decoder's sizes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from keylm.recipe.base import Config, PositiveCount


class ModelConfig(Config):
    """The decoder's sizes, named as in transformers' `Qwen3Config`. The defaults have 9.7M parameters."""

    vocab_size: PositiveCount = 8192
    """Tokens in the vocabulary, control tokens included; the tokenizer is trained to exactly this size."""
    hidden_size: PositiveCount = 256
    """Width of the residual stream."""
    num_hidden_layers: PositiveCount = 8
    """Number of decoder layers."""
    num_attention_heads: PositiveCount = 4
    """Query heads per layer."""
    num_key_value_heads: PositiveCount = 2
    """Key/value heads per layer; each serves `num_attention_heads / num_key_value_heads` query heads."""
    head_dim: PositiveCount = 64
    """Width of one head. Must be even, because rotary embedding rotates pairs."""
    intermediate_size: PositiveCount = 640
    """Width of the SwiGLU feed-forward layer."""
    max_position_embeddings: PositiveCount = 1024
    """Context length, in tokens."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary embedding's wavelengths."""
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    """Added to the mean square in every RMSNorm."""
    initialization: Literal["copying_heads", "normal"] = "copying_heads"
    """How the weights are initialized before pretraining. `copying_heads`: normal, plus one pair of attention heads
    that copies from the context (an induction circuit), which small models otherwise learn late. `normal`: none."""

    @model_validator(mode="after")
    def _check_sizes(self) -> ModelConfig:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        if self.head_dim % 2:
            raise ValueError("head_dim must be even")
        if not 256 + 3 <= self.vocab_size <= 65_536:
            raise ValueError("vocab_size must lie between 259 (bytes and control tokens) and 65,536 (uint16)")
        return self

    @property
    def transformers_fields(self) -> dict[str, Any]:
        """The keyword arguments of transformers' `Qwen3Config`: all fields but those that are ours alone."""
        # Other programs read config.json, and the weights do not show how they began.
        return self.model_dump(exclude={"initialization"})
