"""Greedy generation in batches, with a cache of keys and values: what evaluation uses before there is an export."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from keylm.kernels.ops import linear
from keylm.model import KeyLM, LayerCache


@torch.no_grad()
def generate(
    model: KeyLM,
    prompts: list[list[int]],
    max_new_tokens: int,
    stop: int,
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """The likeliest continuation of each prompt, token by token, up to and with the token `stop`.

    Prompts are token ids. An answer without `stop` was cut off: by `max_new_tokens` or by the model's context length.
    Answers do not depend on `batch_size`, but for rounding. `advance` is told how many are done.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        ids = _batch(model, [prompts[index] for index in chosen], max_new_tokens, stop)
        for index, row in zip(chosen, ids.tolist(), strict=True):
            ended = row[: row.index(stop) + 1] if stop in row else row
            answers[index] = ended[: _room(model, prompts[index])]
        advance(len(chosen))
    return answers


def _room(model: KeyLM, prompt: list[int]) -> int:
    """Tokens that the context has left for an answer."""
    return max(0, model.config.max_position_embeddings - len(prompt))


def _batch(model: KeyLM, prompts: list[list[int]], max_new_tokens: int, stop: int) -> Tensor:
    """New token ids (B, new), for prompts that are padded on the left to one length."""
    longest = max(map(len, prompts))
    rooms = torch.tensor([_room(model, prompt) for prompt in prompts])
    steps = min(max_new_tokens, int(rooms.max()))
    tokens = torch.tensor([[stop] * (longest - len(prompt)) + prompt for prompt in prompts])
    padding = torch.tensor([longest - len(prompt) for prompt in prompts])
    caches = _empty_caches(model, len(prompts), longest + steps)
    new: list[Tensor] = []
    done = rooms <= 0
    fed = tokens
    for step in range(steps):
        seen = longest + step
        positions = (torch.arange(seen - fed.shape[1], seen) - padding[:, None]).clamp(min=0)
        hidden = model(fed, positions=positions, mask=_mask(seen, fed.shape[1], padding), caches=caches)
        chosen = linear(hidden[:, -1], model.lm_head.weight).argmax(dim=-1)
        new.append(chosen)
        done |= (chosen == stop) | (rooms <= step + 1)
        if done.all():
            break
        fed = chosen[:, None]
    return torch.stack(new, dim=1) if new else torch.empty(len(prompts), 0, dtype=torch.long)


def _mask(seen: int, fed: int, padding: Tensor) -> Tensor:
    """Boolean (B, 1, fed, seen): no padding, nothing that comes later; padding itself looks at itself."""
    query = torch.arange(seen - fed, seen)[:, None]
    key = torch.arange(seen)[None]
    return ((key <= query) & (key >= padding[:, None, None]) | (key == query))[:, None]


def _empty_caches(model: KeyLM, batch: int, room: int) -> list[LayerCache]:
    config = model.config
    shape = (batch, config.num_key_value_heads, room, config.head_dim)
    return [
        LayerCache(torch.empty(shape, dtype=model.compute_dtype), torch.empty(shape, dtype=model.compute_dtype))
        for _ in range(config.num_hidden_layers)
    ]
