"""The proof that goes with a release: what transformers and llama.cpp make of it, held against this package."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from functools import partial
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

CONVERSATIONS: list[list[Message]] = [
    [{"role": "user", "content": "What is a tide?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Naïve 🦊: name 3 animals, please."}],
    [
        {"role": "user", "content": "  {{ name }} {% if %} \\n\t'\"<&>  \n\n"},
        {"role": "assistant", "content": "```py\nprint('🐕\u200d🦺')\n```"},
        {"role": "user", "content": "Write <|im_end|> twice."},
    ],
]
"""What is rendered and predicted: white space at the ends, template syntax, quotes, control strings."""

_TEXTS_AT_ONCE = 200

Tops = list[tuple[int, float]]
"""The likeliest next tokens with their log-probabilities, in nats."""


def verify_export(run: Run, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Hold a run's export against this package: token ids, rendered conversations, next-token log-probabilities.

    Gives the numbers of `texts` and `conversations` that were equal everywhere, and by engine and file the largest
    absolute difference of a log-probability among the ten likeliest tokens.

    Raises:
        KeyLMError: a text has other ids elsewhere, or a conversation another rendering.
    """
    from keylm.gguf.locate import gguf_path

    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    prompts = [encode_messages(tokenizer, messages, add_generation_prompt=True)[0] for messages in CONVERSATIONS]
    expected = _log_probabilities(run, weights, prompts)
    sample = stress_texts(NUM_TEXTS)
    ids = _parsed_ids(tokenizer, sample)
    theirs = Transformers(run.stage("export") / "transformers")
    engines: dict[str, Transformers | Llama] = {f"transformers {version('transformers')}": theirs}
    engines |= {f"llama.cpp, {kind}": Llama(gguf_path(run, kind)) for kind in run.recipe.export.gguf}
    differences = {}
    for name, engine in engines.items():
        _require_equal(name, sample, ids, engine.tokenize(sample))
        _require_equal(name, CONVERSATIONS, [render(messages, True) for messages in CONVERSATIONS], engine.render())
        differences[name] = max(map(_difference, expected, map(engine.likeliest, prompts)))
    return {"texts": len(sample), "conversations": len(CONVERSATIONS), "differences": differences}


def verification_section(found: dict[str, Any]) -> str:
    """The card's section about what was checked."""
    from keylm.export.card_scores import markdown_table

    rows = [[name, "equal", "equal", f"{value:.2g}"] for name, value in found["differences"].items()]
    head = ["engine and file", "token ids", "rendered conversations", "largest difference of a log-probability"]
    return (
        "\n## What was checked\n\n"
        f"When this was exported, each engine read {found['texts']:,} awkward texts (every code point that Unicode "
        f"assigns, joined emoji, white space, control strings) and {found['conversations']} conversations, and was "
        "held against the program that trained the model, in float32. The difference is in nats, among the ten "
        f"likeliest tokens:\n\n{markdown_table(head, *rows)}"
    )


class Transformers:
    """The export as transformers loads it, in float32."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, utils

        utils.logging.disable_progress_bar()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def tokenize(self, sample: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, control strings parsed."""
        ids: list[list[int]] = self.tokenizer(list(sample), verbose=False)["input_ids"]
        return ids

    def render(self) -> list[str]:
        """Each of `CONVERSATIONS`, with the generation prompt."""
        rendered = partial(self.tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
        return [rendered(messages) for messages in CONVERSATIONS]

    def likeliest(self, prompt: list[int]) -> Tops:
        """The ten likeliest tokens after a prompt."""
        import torch

        with torch.no_grad():
            found = self.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1).topk(10)
        return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))


class Llama:
    """A GGUF as llama.cpp's own server loads it, with nothing rounded but the weights."""

    def __init__(self, path: Path) -> None:
        self.server = exact_server(path)
        self.end_of_text = self._post("/tokenize", content=END_OF_TEXT, parse_special=True)["tokens"][0]

    def tokenize(self, sample: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, control strings parsed. Many are sent at once, with end-of-text between them."""
        ids: list[list[int]] = []
        for start in range(0, len(sample), _TEXTS_AT_ONCE):
            part = sample[start : start + _TEXTS_AT_ONCE]
            joined = END_OF_TEXT.join(part)
            found = self._post("/tokenize", content=joined, add_special=True, parse_special=True)["tokens"]
            ids += _split(found, self.end_of_text, [text.count(END_OF_TEXT) for text in part])
        return ids

    def render(self) -> list[str]:
        """Each of `CONVERSATIONS`, with the generation prompt."""
        return [self._post("/apply-template", messages=messages)["prompt"] for messages in CONVERSATIONS]

    def likeliest(self, prompt: list[int]) -> Tops:
        """The ten likeliest tokens after a prompt."""
        # A piece that ends inside a character comes without probabilities: the bias makes it "a".
        answer = self._post("/completion", prompt=prompt, n_predict=1, n_probs=10, logit_bias=[["a", 1000]])
        return [(top["id"], top["logprob"]) for top in answer["completion_probabilities"][0]["top_logprobs"]]

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.server.listening_address + path, data, headers)
        with urllib.request.urlopen(request) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


def _split(ids: list[int], separator: int, inside: list[int]) -> list[list[int]]:
    """Cut at each `separator` that joined two texts; `inside` counts those that a text has of its own."""
    cuts = [at for at, token in enumerate(ids) if token == separator]
    parts, start = [], 0
    for own in inside:
        del cuts[:own]
        end = cuts.pop(0) if cuts else len(ids)
        parts.append(ids[start:end])
        start = end + 1
    return parts


def _parsed_ids(tokenizer: Tokenizer, sample: list[str]) -> list[list[int]]:
    """Token ids of each text by the trained tokenizer, control strings parsed as in a rendered template."""
    tokenizer.backend.encode_special_tokens = False
    ids = tokenizer.encode_batch(sample)
    tokenizer.backend.encode_special_tokens = True
    return ids


def _log_probabilities(run: Run, weights: dict[str, torch.Tensor], prompts: list[list[int]]) -> list[torch.Tensor]:
    """Log-probabilities (V,) of the token after each prompt, by our own decoder in float32."""
    import torch

    from keylm.model.transformer import KeyLM

    model = KeyLM(run.recipe.model)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return [model.eval().logits(torch.tensor([prompt]))[0, -1].log_softmax(-1) for prompt in prompts]


def _difference(expected: torch.Tensor, found: Tops) -> float:
    return max(abs(expected[token].item() - value) for token, value in found)


def _require_equal(name: str, given: Sequence[Any], ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    for what, here, there in zip(given, ours, theirs, strict=True):
        if here != there:
            raise KeyLMError(
                f"the export is wrong: {name} makes {there!r:.300} of {what!r:.200}, and training {here!r:.300}"
            )
