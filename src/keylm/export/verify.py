"""Verification of an export: transformers and llama.cpp must read it exactly as this package does."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keylm.common.documents import Message
from keylm.common.errors import KeyLMError
from keylm.export.tokenizer_stress_texts import stress_texts
from keylm.inference.llama_cpp import exact_server
from keylm.run import Run
from keylm.tokenizer.chat_template import render
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import END_OF_TEXT, Tokenizer

if TYPE_CHECKING:
    import torch

NUM_TEXTS = 20_000
"""Texts that every engine tokenizes."""

CONVERSATIONS: list[list[Message]] = [
    [{"role": "user", "content": "What is a tide?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Naïve 🦊: name 3 animals, please."}],
    [
        {"role": "user", "content": "  {{ name }} {% if %} \\n\t'\"<&>  \n\n"},
        {"role": "assistant", "content": "```py\nprint('🐕\u200d🦺')\n```"},
        {"role": "user", "content": "Write <|im_end|> twice."},
    ],
]
"""Conversations that every engine renders and continues: outer whitespace, template syntax, quotes, control tokens."""

_TEXTS_PER_REQUEST = 200

TopLogprobs = list[tuple[int, float]]
"""The most likely next tokens: their ids and log-probabilities, in nats."""


def verify_export(run: Run, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Compare a run's export with this package, as loaded by transformers and, for every GGUF file, by llama.cpp.

    Args:
        run: A run with a transformers folder and GGUF files in its export folder.
        weights: The weights that the export was made from, of any float dtype.

    Returns:
        `texts` and `conversations`, the numbers of those that were tokenized and rendered identically everywhere, and
        `differences`: by engine and file, the largest absolute difference of a log-probability, in nats, among the ten
        most likely next tokens after each conversation.

    Raises:
        KeyLMError: An engine tokenizes a text or renders a conversation differently.
    """
    import torch

    from keylm.gguf.locate import gguf_path
    from keylm.model.transformer import KeyLM

    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    texts = stress_texts(NUM_TEXTS)
    # Training encodes control tokens in a message as plain text, but engines parse rendered conversations, so here
    # they are parsed too.
    tokenizer.backend.encode_special_tokens = False
    token_ids = tokenizer.encode_batch(texts)
    tokenizer.backend.encode_special_tokens = True
    rendered = [render(messages, add_generation_prompt=True) for messages in CONVERSATIONS]

    # The reference log-probabilities (vocabulary,) after each conversation, from our own decoder in float32.
    model = KeyLM(run.recipe.model).eval()
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    prompts = [encode_messages(tokenizer, messages, add_generation_prompt=True)[0] for messages in CONVERSATIONS]
    expected = [model.logits(torch.tensor([prompt]))[0, -1].log_softmax(-1) for prompt in prompts]

    engines: dict[str, TransformersEngine | LlamaCppEngine] = {
        f"transformers {version('transformers')}": TransformersEngine(run.stage("export") / "transformers"),
        **{f"llama.cpp, {name}": LlamaCppEngine(gguf_path(run, name)) for name in run.recipe.export.gguf},
    }
    differences = {}
    for name, engine in engines.items():
        _require_equal(name, texts, token_ids, engine.tokenize(texts))
        _require_equal(name, CONVERSATIONS, rendered, engine.render_conversations())
        differences[name] = max(
            abs(reference[token].item() - logprob)
            for prompt, reference in zip(prompts, expected, strict=True)
            for token, logprob in engine.top_logprobs(prompt)
        )
    return {"texts": len(texts), "conversations": len(CONVERSATIONS), "differences": differences}


class TransformersEngine:
    """The transformers folder of an export, in float32."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, utils

        utils.logging.disable_progress_bar()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, with control tokens parsed."""
        # Not verbose: it would warn of every text that is longer than the context.
        ids: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"]
        return ids

    def render_conversations(self) -> list[str]:
        """Render each of `CONVERSATIONS`, with the generation prompt."""
        return [
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            for messages in CONVERSATIONS
        ]

    def top_logprobs(self, prompt: list[int]) -> TopLogprobs:
        """The ten most likely tokens after a prompt of token ids."""
        import torch

        with torch.no_grad():
            top = self.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1).topk(10)
        return list(zip(top.indices.tolist(), top.values.tolist(), strict=True))


class LlamaCppEngine:
    """A GGUF file in llama.cpp's own server, which rounds nothing but the weights."""

    def __init__(self, path: Path) -> None:
        self.server = exact_server(path)
        self.end_of_text = self._post("/tokenize", content=END_OF_TEXT, parse_special=True)["tokens"][0]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, with control tokens parsed."""
        ids: list[list[int]] = []
        # One request per text would take a minute. A control token between two texts separates their tokens cleanly.
        for start in range(0, len(texts), _TEXTS_PER_REQUEST):
            batch = texts[start : start + _TEXTS_PER_REQUEST]
            content = END_OF_TEXT.join(batch)
            joined = self._post("/tokenize", content=content, add_special=True, parse_special=True)["tokens"]
            ids += _split_ids(joined, self.end_of_text, [text.count(END_OF_TEXT) for text in batch])
        return ids

    def render_conversations(self) -> list[str]:
        """Render each of `CONVERSATIONS`, with the generation prompt."""
        return [self._post("/apply-template", messages=messages)["prompt"] for messages in CONVERSATIONS]

    def top_logprobs(self, prompt: list[int]) -> TopLogprobs:
        """The ten most likely tokens after a prompt of token ids."""
        # If the sampled token is an incomplete character, the server omits the probabilities: the bias makes it "a",
        # and does not change them.
        answer = self._post("/completion", prompt=prompt, n_predict=1, n_probs=10, logit_bias=[["a", 1000]])
        return [(top["id"], top["logprob"]) for top in answer["completion_probabilities"][0]["top_logprobs"]]

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.server.listening_address + path, data, headers)
        with urllib.request.urlopen(request) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


def _split_ids(ids: list[int], separator: int, own_separators: list[int]) -> list[list[int]]:
    """Split the ids of joined texts at the separators between them.

    A text may contain the separator itself. So `[7, SEP, 8, SEP, 9]` with `own_separators` `[1, 0]` is split into
    `[7, SEP, 8]` and `[9]`: the first text has one of its own, which is skipped.
    """
    positions = [position for position, token in enumerate(ids) if token == separator]
    parts, start = [], 0
    for count in own_separators:
        del positions[:count]
        end = positions.pop(0) if positions else len(ids)
        parts.append(ids[start:end])
        start = end + 1
    return parts


def _require_equal(engine: str, inputs: Sequence[Any], expected: Sequence[Any], actual: Sequence[Any]) -> None:
    for value, ours, theirs in zip(inputs, expected, actual, strict=True):
        if ours != theirs:
            raise KeyLMError(
                f"the export is wrong: {engine} turns {value!r:.200} into {theirs!r:.300}, but training into "
                f"{ours!r:.300}: do not publish it, and report this with the output of `keylm doctor`"
            )
