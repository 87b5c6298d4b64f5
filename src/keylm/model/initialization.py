"""The first weights: normal, but for a pair of heads that copy from the context before any training.

To copy is to find an earlier place like this one and to say what came next there. Trained models do it by two heads
in a row (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Olsson et al. 2022, "In-context
Learning and Induction Heads"), which a small model finds late: our quickstart would end before. So they are there from
the start, in the first key/value group of each layer, and training goes on from them:

* layer 0 looks at the token before, by position alone. Embeddings share a direction; queries and keys read nothing
  else, and rotary embedding turns that into a peak one place back. What it finds, projected, it writes aside.
* the other layers look for places whose token before, written aside, is the token here, and say the token there.

Everything is a linear map of the ordinary graph: nothing of this shows in the exported model's architecture.
`docs/log.md` has the measurements. The idea that good first weights resemble trained ones is from Trockman and Kolter
2023, "Mimetic Initialization of Self-Attention Layers".
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from keylm.model.transformer import Attention, KeyLM
from keylm.recipe.model import ModelConfig

_WEIGHT_STD = 0.02
_EMBEDDING_STD = 0.5
_SHARED_STD = 0.3
"""Size of the direction that all embeddings share, against their own standard deviation of 0.5."""
_HEAD_STD = 0.04
_WRITTEN_ASIDE = 0.7
_SAID = 5.0
"""What the copying layers add in all, in units of a normed embedding."""


def init_model(config: ModelConfig, seed: int) -> KeyLM:
    """A model whose weights are a function of the seed. What a layer writes is zero but for the copying heads."""
    model = KeyLM(config)
    generator = Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 2:
            nn.init.normal_(parameter, std=_WEIGHT_STD, generator=generator)
    _add_copying_heads(model, generator)
    return model


@torch.no_grad()
def _add_copying_heads(model: KeyLM, generator: Generator) -> None:
    config = model.config
    shared = _orthonormal(1, config.hidden_size, generator)
    embedding = torch.randn(config.vocab_size, config.hidden_size, generator=generator)
    embedding -= embedding @ shared.T @ shared
    model.lm_head.weight.copy_(_HEAD_STD * embedding)
    model.model.embed_tokens.weight.copy_(_EMBEDDING_STD * embedding + _SHARED_STD * config.hidden_size**0.5 * shared)
    read, aside = (_orthonormal(config.head_dim, config.hidden_size, generator) for _ in range(2))
    read -= read @ shared.T @ shared
    first, *others = (module for module in model.modules() if isinstance(module, Attention))
    _look_back(first, config, shared)
    _write(first, read, aside, _WRITTEN_ASIDE)
    for attention in others:
        _look_for(attention, read, aside, generator)
        said = _orthonormal(config.head_dim, config.hidden_size, generator)
        _write(attention, said, said, _SAID / len(others))


def _look_back(attention: Attention, config: ModelConfig, shared: Tensor) -> None:
    """Make the first group's queries meet the keys of one place before, in the pairs that turn fastest."""
    half = config.head_dim // 2
    fast = max(1, half // 4)
    speeds = config.rope_theta ** (-torch.arange(fast) / half)
    query, key = torch.zeros(2, half), torch.zeros(2, half)
    query[0, :fast], query[1, :fast], key[0, :fast] = speeds.cos(), -speeds.sin(), 1.0
    _set_queries(attention, query.view(-1, 1) @ shared)
    attention.k_proj.weight[: attention.head_dim] = key.view(-1, 1) @ shared


def _look_for(attention: Attention, read: Tensor, aside: Tensor, generator: Generator) -> None:
    """Make the first group's queries, what `read` sees here, meet keys that hold the same aside. Only the pairs that
    turn slowest are used, so that distance hardly matters."""
    half = attention.head_dim // 2
    slow = torch.arange(attention.head_dim).view(2, half)[:, half // 2 :].flatten()
    mixed = _orthonormal(len(slow), attention.head_dim, generator)
    query, key = torch.zeros_like(read), torch.zeros_like(aside)
    query[slow], key[slow] = mixed @ read, mixed @ aside
    _set_queries(attention, query)
    attention.k_proj.weight[: attention.head_dim] = key


def _set_queries(attention: Attention, query: Tensor) -> None:
    """Give every query head of the first group the same weights (head_dim, hidden)."""
    heads = _heads_per_group(attention)
    attention.q_proj.weight[: heads * attention.head_dim] = query.repeat(heads, 1)


def _write(attention: Attention, values: Tensor, outputs: Tensor, gain: float) -> None:
    """Make the first group read by `values` and write along `outputs`, each (head_dim, hidden)."""
    heads = _heads_per_group(attention)
    attention.v_proj.weight[: attention.head_dim] = values
    attention.o_proj.weight[:, : heads * attention.head_dim] = (gain / heads * outputs.T).repeat(1, heads)


def _heads_per_group(attention: Attention) -> int:
    return attention.num_heads[0] // attention.num_heads[1]


def _orthonormal(rows: int, columns: int, generator: Generator) -> Tensor:
    """A random matrix whose rows are orthogonal and of length 1, as far as there is room for them."""
    matrix = torch.empty(rows, columns)
    return nn.init.orthogonal_(matrix, generator=generator)
