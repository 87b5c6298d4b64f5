"""The decoder: Qwen3's graph, under transformers' parameter names, readable in one sitting.

Shapes: batch (B), time (T), hidden_size (H), query heads (N), key/value heads (K), head_dim (D), vocabulary (V).
Parameters are float32; matrix products run in `compute_dtype`. The operations between products are in
`keylm.model.kernels.ops`, in plain torch and compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from keylm.model.attention import Mask, attention, document_mask
from keylm.model.document_attention import document_positions
from keylm.model.kernels.ops import add_rms_norm, linear, norm_linear, split_norm_rope, swiglu_linear
from keylm.model.kv_cache import CachedContext
from keylm.model.loss import linear_cross_entropy, linear_nll
from keylm.recipe.model import ModelConfig


class RMSNorm(nn.Module):
    """Root mean square norm over the last dimension (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor, delta: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        """Add `delta` to the residual stream `x`, both (..., width). Return the sum and its norm, multiplied by the
        concatenated `weights` if there are any."""
        if weights:
            return norm_linear(x, delta, self.weight, self.eps, *weights)
        return add_rms_norm(x, delta, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention with RMSNorm on each head's query and key, and rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, self.head_dim = config.hidden_size, config.head_dim
        queries, keys = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        # The modules only hold weights, under the names of the exported graph: `linear` casts and multiplies them.
        self.q_proj = nn.Linear(hidden, queries, bias=False)
        self.k_proj = nn.Linear(hidden, keys, bias=False)
        self.v_proj = nn.Linear(hidden, keys, bias=False)
        self.o_proj = nn.Linear(queries, hidden, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.num_heads = config.num_attention_heads, config.num_key_value_heads

    @property
    def input_weights(self) -> tuple[Tensor, ...]:
        """Weights of queries, keys and values, which are multiplied as one matrix."""
        # Joined only for the product, because Muon orthogonalizes each, and checkpoints have them apart.
        return self.q_proj.weight, self.k_proj.weight, self.v_proj.weight

    def forward(self, qkv: Tensor, rotary: Tensor, mask: Mask) -> Tensor:
        """Map queries, keys and values (B, T, (N + 2 K) D) to (B, T, H), under a mask of `keylm.model.attention`."""
        q, k, v = split_norm_rope(qkv, self.q_norm.weight, self.k_norm.weight, rotary, self.num_heads, self.q_norm.eps)
        return linear(attention(q, k, v, mask).flatten(2), self.o_proj.weight)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    @property
    def input_weights(self) -> tuple[Tensor, ...]:
        """Weights of gate and up, which are multiplied as one matrix."""
        return self.gate_proj.weight, self.up_proj.weight

    def forward(self, gate_up: Tensor) -> Tensor:
        """Map gate and up (B, T, 2 intermediate_size) to (B, T, H)."""
        return swiglu_linear(gate_up, self.down_proj.weight)


class Layer(nn.Module):
    """Attention, then feed-forward, each on a normalized copy of the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, delta: Tensor, rotary: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
        """Map the residual stream (B, T, H) and the previous layer's output to the same for the next layer.

        The output is not added here but in the next norm, which reads the sum anyway."""
        x, qkv = self.input_layernorm(x, delta, *self.self_attn.input_weights)
        delta = self.self_attn(qkv, rotary, mask)
        x, gate_up = self.post_attention_layernorm(x, delta, *self.mlp.input_weights)
        return x, self.mlp(gate_up)


class Decoder(nn.Module):
    """Embedding, layers and final norm: everything but the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class KeyLM(nn.Module):
    """The language model. `state_dict()` has the names and shapes of transformers' `Qwen3ForCausalLM`."""

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        self.model = Decoder(config)
        # Not tied to the embedding: each has its own learning rate, and copying heads need a direction in the embedding
        # that the head does not have.
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def device(self) -> torch.device:
        """The device of the weights, where inputs have to be."""
        return self.lm_head.weight.device

    def forward(
        self,
        tokens: Tensor,
        document_ids: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        contexts: Sequence[CachedContext] | None = None,
    ) -> Tensor:
        """Hidden states (B, T, H) after the last norm, for tokens (B, T) of int64.

        Args:
            document_ids: (B, T) numbers of the documents in packed sequences. Attention then stays within each
                document, and positions restart in each (see `keylm.model.document_attention`).
            positions: (B, T), and `mask`, boolean (B, 1, T, T), for any other context; by default causal attention over
                the whole sequence.
            contexts: Of each layer, from a `KVCache`, for tokens that continue what is cached.
        """
        # A document gets the positions and the context that it has alone, wherever it is packed.
        attention_mask: Mask = mask
        if document_ids is not None:
            positions = document_positions(document_ids)
            attention_mask = document_mask(document_ids, self.compute_dtype)
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        rotary = rotary_table(positions, self.config)
        x = self.model.embed_tokens(tokens).to(self.compute_dtype)
        # Zeros rather than None for the first layer, so that all layers share one compiled graph.
        delta = torch.zeros_like(x)
        masks: Sequence[Mask] = contexts or [attention_mask] * len(self.model.layers)
        for layer, layer_mask in zip(self.model.layers, masks, strict=True):
            x, delta = layer(x, delta, rotary, layer_mask)
        hidden: Tensor = self.model.norm(x, delta)[1]
        return hidden

    def loss(self, tokens: Tensor, targets: Tensor, document_ids: Tensor | None = None) -> Tensor:
        """Sum of the negative log-likelihoods of targets (B, T), in nats; targets of -100 do not count."""
        return linear_cross_entropy(self(tokens, document_ids).flatten(0, 1), self.lm_head.weight, targets.flatten())

    @torch.no_grad()
    def nll(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of each target (B, T), in nats, float32; 0 where the target is -100."""
        return linear_nll(self(tokens).flatten(0, 1), self.lm_head.weight, targets.flatten()).view_as(targets)

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        """Logits (B, T, V) in float32, for tokens (B, T)."""
        return linear(self(tokens), self.lm_head.weight).float()


def load_model(config: ModelConfig, path: Path) -> KeyLM:
    """Load a model from a safetensors file, in float32, on the CPU and in evaluation mode."""
    model = KeyLM(config)
    model.load_state_dict(load_file(path))
    return model.eval()


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a model's `state_dict()`, without allocating a model."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in KeyLM(config).state_dict().items()}


def rotary_table(positions: Tensor, config: ModelConfig) -> Tensor:
    """Cosines and sines of rotary embedding (Su et al. 2021), (2, B, T, 1, D), for positions (B, T)."""
    exponents = torch.arange(0, config.head_dim, 2, device=positions.device) / config.head_dim
    # In float32, because bfloat16 cannot tell positions over 256 apart.
    angles = positions[..., None].float() / config.rope_theta**exponents
    # Qwen3 rotates the two halves of a head against each other, not neighboring channels.
    angles = torch.cat([angles, angles], dim=-1)[:, :, None]
    return torch.stack([angles.cos(), angles.sin()])
