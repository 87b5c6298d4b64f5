"""Initial weights: `model.initialization` is `normal`, or `copying_heads`, which adds an induction circuit to it.

An induction circuit copies from the context: it finds an earlier occurrence of the current token and predicts the token
that followed there. Trained transformers implement it with two attention heads in successive layers (Elhage et al.
2021, "A Mathematical Framework for Transformer Circuits"; Olsson et al. 2022, "In-context Learning and Induction
Heads"). A small model learns them late: the quickstart would end before. `copying_heads` writes the circuit into the
initial weights, in the first key/value group of each layer, and training goes on from there:

* Layer 0 has a *previous-token head*. All embeddings share one direction; queries and keys read nothing else, so that
  their scores depend on positions alone, and rotary embedding turns them into a peak one position back. The head copies
  the previous token's embedding into a subspace of the residual stream.
* Each later layer has an *induction head*. Its queries read the current token; its keys read that subspace, so they
  match where the previous token is the same as the current one. Its values copy the token found there to the output.

All of this is a choice of weights in the ordinary graph, so the exported architecture does not change. The idea that
good initial weights resemble trained ones is that of Trockman and Kolter 2023, "Mimetic Initialization of
Self-Attention Layers". The measurements are in `docs/log.md`.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from keylm.model.transformer import Attention, KeyLM
from keylm.recipe.model import ModelConfig

_WEIGHT_STD = 0.02
_EMBEDDING_STD = 0.5
_SHARED_STD = 0.3
"""Size of the direction that all embeddings share, beside their own standard deviation of 0.5."""
_LM_HEAD_STD = 0.04
_PREVIOUS_TOKEN_GAIN = 0.7
_INDUCTION_GAIN = 5.0
"""Sum of the output gains of all induction heads, in units of a normalized embedding."""


def init_model(config: ModelConfig, seed: int) -> KeyLM:
    """Create a model whose weights are a function of `config` and `seed`.

    Matrices are normal with a standard deviation of 0.02, norms are 1, and the output projections of attention and
    feed-forward are zero, so that every layer starts as the identity. With `config.initialization` "copying_heads",
    the weights of an induction circuit are then written over a part of them (see the module's description).
    """
    model = KeyLM(config)
    generator = Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 2:
            nn.init.normal_(parameter, std=_WEIGHT_STD, generator=generator)
    if config.initialization == "copying_heads":
        _add_copying_heads(model, generator)
    return model


@torch.no_grad()
def _add_copying_heads(model: KeyLM, generator: Generator) -> None:
    config = model.config
    # Embedding and head are the same random vectors, so that a token's embedding predicts that token. The shared
    # direction is in the embedding only, and tells tokens nothing apart.
    shared = _orthonormal(1, config.hidden_size, generator)
    embedding = torch.randn(config.vocab_size, config.hidden_size, generator=generator)
    embedding -= embedding @ shared.T @ shared
    model.lm_head.weight.copy_(_LM_HEAD_STD * embedding)
    model.model.embed_tokens.weight.copy_(_EMBEDDING_STD * embedding + _SHARED_STD * config.hidden_size**0.5 * shared)
    # Two subspaces: where a token's own embedding is read, and where the previous token's is written.
    own, previous = (_orthonormal(config.head_dim, config.hidden_size, generator) for _ in range(2))
    own -= own @ shared.T @ shared
    first, *others = (module for module in model.modules() if isinstance(module, Attention))
    _set_previous_token_head(first, config, shared, own, previous)
    for attention in others:
        _set_induction_head(attention, own, previous, _INDUCTION_GAIN / len(others), generator)


def _set_previous_token_head(
    attention: Attention, config: ModelConfig, shared: Tensor, own: Tensor, previous: Tensor
) -> None:
    """Attend one position back, and copy what `own` reads there into `previous`, both (head_dim, hidden)."""
    half = config.head_dim // 2
    # The query is the key, rotated back by one position, so rotary scores peak at a distance of one. Only the pairs
    # that rotate fastest are used, which makes the peak narrow.
    num_fast = max(1, half // 4)
    speeds = config.rope_theta ** (-torch.arange(num_fast) / half)
    query, key = torch.zeros(2, half), torch.zeros(2, half)
    query[0, :num_fast], query[1, :num_fast], key[0, :num_fast] = speeds.cos(), -speeds.sin(), 1.0
    _set_first_group(
        attention,
        query=query.view(-1, 1) @ shared,
        key=key.view(-1, 1) @ shared,
        value=own,
        output=previous,
        gain=_PREVIOUS_TOKEN_GAIN,
    )


def _set_induction_head(attention: Attention, own: Tensor, previous: Tensor, gain: float, generator: Generator) -> None:
    """Attend to positions whose previous token is the current token, and add the token found there to the output."""
    half = attention.head_dim // 2
    # Only the pairs that rotate slowest are used, so that the score hardly depends on the distance.
    slow = torch.arange(attention.head_dim).view(2, half)[:, half // 2 :].flatten()
    mixed = _orthonormal(len(slow), attention.head_dim, generator)
    query, key = torch.zeros_like(own), torch.zeros_like(previous)
    query[slow], key[slow] = mixed @ own, mixed @ previous
    copied = _orthonormal(own.shape[0], own.shape[1], generator)
    _set_first_group(attention, query=query, key=key, value=copied, output=copied, gain=gain)


def _set_first_group(
    attention: Attention, *, query: Tensor, key: Tensor, value: Tensor, output: Tensor, gain: float
) -> None:
    """Set the weights of the first key/value group, all of whose query heads become alike.

    The group reads values by `value` and writes them along `output`, times `gain`; each matrix is (head_dim, hidden).
    """
    num_heads, width = attention.num_heads[0] // attention.num_heads[1], attention.head_dim
    attention.q_proj.weight[: num_heads * width] = query.repeat(num_heads, 1)
    attention.k_proj.weight[:width] = key
    attention.v_proj.weight[:width] = value
    attention.o_proj.weight[:, : num_heads * width] = (gain / num_heads * output.T).repeat(1, num_heads)


def _orthonormal(rows: int, columns: int, generator: Generator) -> Tensor:
    """A random matrix with orthonormal rows, as far as there are enough columns."""
    return nn.init.orthogonal_(torch.empty(rows, columns), generator=generator)
