"""Hold `keylm serve` against llama.cpp and transformers: `python benchmarks/serving.py [PART ...]`.

Parts: `overhead` (our HTTP against llama.cpp in the same process, on the same loaded model), `decode` (F16, Q8_0, Q6_K,
Q4_0 against transformers' `generate` in bfloat16), `chat` (conversations, one at a time and four at once, over HTTP
from `keylm serve` on Q8_0, Q6_K and Q4_0, and from llama.cpp's own server as it comes, on Q8_0) and `start` (from
nothing to the first answer). All by default. Everything is measured by turns and compared within a turn; shown are
medians. Exit code 1 if anything is missed.

The model has the recipe's shape and random weights, so answers have a set length. `--text` takes jsonl(.zst) with
`messages`, whose users' turns are asked; without it, generated instructions are. GOMP_SPINCOUNT in the environment
replaces the engine's own setting, and never reaches llama.cpp's own server.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

from keylm.common.documents import Message
from keylm.recipe import Recipe, load_recipe
from keylm.recipe.sources import FilesConfig
from keylm.run import Run, create

Line = tuple[str, str, str, bool]
"""What was measured, what was reached, what was asked, whether it holds."""

_KINDS = ("F16", "Q8_0", "Q6_K", "Q4_0")
_ANSWER = 48
_GREEDY = {"temperature": 0, "max_tokens": _ANSWER, "ignore_eos": True}
_LLAMA = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.verbosity = -1
server = xllamacpp.Server(params)
print(server.listening_address, file=sys.stderr, flush=True)
threading.Event().wait()
"""


def main() -> None:
    """Print a line per target: what was asked, what was reached."""
    asked = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        run = _release(load_recipe(asked.recipe), Path(folder) / "run")
        talks = list(islice(_talks(asked.text), asked.turns))
        parts: dict[str, Callable[[], list[Line]]] = {
            "overhead": lambda: _overhead(run, talks, asked.turns),
            "decode": lambda: _decode(run, asked.turns),
            "chat": lambda: _chat(run, talks),
            "start": lambda: _start(run),
        }
        missed = False
        for part in asked.parts or parts:
            for name, reached, target, holds in parts[part]():
                print(f"{'ok  ' if holds else 'MISS'} {name:<52} {reached:>24}   asked: {target}", flush=True)
                missed |= not holds
    sys.exit(missed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="PART", help="overhead, decode, chat, start")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/keylm-75m.yaml"))
    parser.add_argument("--text", type=Path, help="conversations; generated instructions without it")
    parser.add_argument("--turns", type=int, default=8, help="conversations, and turns of every comparison")
    return parser.parse_args()


def _release(given: Recipe, folder: Path) -> Run:
    """A transformers folder and GGUF files of random weights, with a tokenizer of what this environment documents."""
    import torch

    from keylm.data.sources import installed_docs
    from keylm.data.sources.progress import ReadProgress
    from keylm.export.transformers_folder import write_transformers_folder
    from keylm.gguf.file import write_gguf
    from keylm.gguf.locate import gguf_path
    from keylm.model.initialization import init_model
    from keylm.tokenizer.training import train_tokenizer

    run = create(given, folder)
    texts = (document.plain for document in islice(installed_docs.read_installed_docs(ReadProgress()), 2000))
    tokenizer = train_tokenizer(texts, given.model.vocab_size, given.tokenizer.pre_tokenizer)
    tokenizer.save(run.stage("tokenizer"), given.model.max_position_embeddings)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in init_model(given.model, 0).state_dict().items()}
    run.stage("export").mkdir()
    write_transformers_folder(run, weights, run.stage("export") / "transformers")
    for kind in _KINDS:
        write_gguf(run, weights, kind, gguf_path(run, kind))
    return run


def _talks(text: Path | None) -> Iterator[list[str]]:
    """What the users of conversations say: two to six turns, short enough for the context with all answers."""
    for messages in _conversations(text):
        turns = [message["content"] for message in messages if message["role"] == "user"][:6]
        if len(turns) > 1 and sum(map(len, turns)) < 3000:
            yield turns


def _conversations(text: Path | None) -> Iterator[Sequence[Message]]:
    from keylm.data.sources.files import read_files
    from keylm.data.sources.progress import ReadProgress
    from keylm.instructions.generate import generate_conversations

    if text is None:
        yield from generate_conversations(10_000, seed=0)
    else:
        source = FilesConfig(name="talks", kind="files", path=str(text))
        yield from (document.messages or () for document in read_files(source, ReadProgress()))


def _overhead(run: Run, talks: list[list[str]], turns: int) -> list[Line]:
    """Seconds of an answer over our HTTP, and of the same answer from the engine behind it."""
    from keylm.gguf.locate import gguf_path
    from keylm.serve.engine import Engine
    from keylm.serve.server import Server

    with closing(Engine(gguf_path(run, "Q8_0"), 4)) as engine, Server(engine, "127.0.0.1", 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        ratios = []
        for turn in range(turns + 1):
            messages = [{"role": "user", "content": talks[turn % len(talks)][0]}]
            prompt = engine.prompt(messages)
            request = {**_GREEDY, "prompt": prompt}
            engine.complete(request, lambda _: None)  # from here on the prompt is in the cache, for both
            bare = _seconds(engine.complete, request, lambda _: None)
            ratios.append(_seconds(_ask, server.url, messages) / bare)
        server.shutdown()
    extra = statistics.median(ratios[1:]) - 1
    return [("overhead of HTTP over llama.cpp in the process", f"{extra:+.1%}", "under 3%", extra < 0.03)]


def _decode(run: Run, turns: int) -> list[Line]:
    """Tokens per second of each kind and of transformers, one answer each by turns."""
    import torch  # before the engine: it is to wait for its threads as it always does
    from transformers import AutoModelForCausalLM

    from keylm.gguf.locate import gguf_path
    from keylm.serve.engine import Engine

    model = AutoModelForCausalLM.from_pretrained(run.stage("export") / "transformers", dtype=torch.bfloat16)
    prompt = torch.arange(5, 37)[None]
    length = {"min_new_tokens": _ANSWER, "max_new_tokens": _ANSWER, "do_sample": False, "repetition_penalty": 1.0}

    def generate() -> None:
        model.generate(prompt, attention_mask=torch.ones_like(prompt), **length)

    engines = {kind: Engine(gguf_path(run, kind)) for kind in _KINDS}
    request = {**_GREEDY, "prompt": prompt[0].tolist(), "cache_prompt": False}
    sides: dict[str, Callable[[], None]] = {"transformers": generate}
    sides |= {kind: partial(engine.complete, request, lambda _: None) for kind, engine in engines.items()}
    rows = [{name: _seconds(side) for name, side in sides.items()} for _ in range(turns + 1)][1:]
    for engine in engines.values():
        engine.close()
    lines = []
    for name in sides:
        rate = statistics.median(_ANSWER / row[name] for row in rows)
        times = statistics.median(row["transformers"] / row[name] for row in rows)
        target = "at least 6 times" if name == "Q8_0" else "-"
        lines.append((f"tokens/s, {name}", f"{rate:.1f}, {times:.1f} times", target, name != "Q8_0" or times >= 6))
    return lines


def _chat(run: Run, talks: list[list[str]]) -> list[Line]:
    """Seconds of whole conversations with llama.cpp's own server and with ours, one and four at a time."""
    with ExitStack() as stack:
        theirs = stack.enter_context(_llama_server(run))
        here = {kind: stack.enter_context(_our_server(run, kind)) for kind in ("Q8_0", "Q6_K", "Q4_0")}
        return [_race(theirs, url, kind, at_once, talks) for at_once in (1, 4) for kind, url in here.items()]


def _race(theirs: str, ours: str, kind: str, at_once: int, talks: list[list[str]]) -> Line:
    groups = [talks[start : start + at_once] for start in range(0, len(talks), at_once)]
    seconds = [[_seconds(_talk, url, group) for url in (theirs, ours)] for group in groups]
    times = statistics.median(slow / fast for slow, fast in seconds)
    name = f"conversations, {at_once} at a time, {kind} against llama.cpp's Q8_0"
    return name, f"{times:.2f} times as fast", "at least 1.3 times", times >= 1.3


def _llama_server(run: Run) -> AbstractContextManager[str]:
    """llama.cpp's own server as it comes, on Q8_0."""
    from keylm.gguf.locate import gguf_path

    bare = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    return _server([sys.executable, "-c", _LLAMA, str(gguf_path(run, "Q8_0"))], bare)


def _our_server(run: Run, kind: str) -> AbstractContextManager[str]:
    from keylm.gguf.locate import gguf_path

    command = [sys.executable, "-m", "keylm", "serve", str(gguf_path(run, kind)), "--port", "0"]
    return _server(command, dict(os.environ))


def _talk(url: str, group: list[list[str]]) -> None:
    """Hold conversations at the same time, each with its own answers before its next turn."""

    def hold(turns: list[str]) -> None:
        messages: list[dict[str, str]] = []
        for turn in turns:
            messages.append({"role": "user", "content": turn})
            messages.append({"role": "assistant", "content": _ask(url, messages)})

    with ThreadPoolExecutor(len(group)) as threads:
        list(threads.map(hold, group))


def _start(run: Run) -> list[Line]:
    """Seconds from the command to the first answer."""
    messages = [{"role": "user", "content": "What is a tide?"}]

    def first_answer() -> float:
        start = time.perf_counter()
        with _our_server(run, "Q8_0") as url:
            _ask(url, messages, max_tokens=1)
            return time.perf_counter() - start

    seconds = statistics.median([first_answer() for _ in range(6)][1:])
    return [("seconds from the command to the first answer", f"{seconds:.2f}", "under 2", seconds < 2)]


@contextmanager
def _server(command: list[str], environment: dict[str, str]) -> Iterator[str]:
    """The address of a server in a process of its own, taken from the first line in which it says one."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield next(found[0] for line in process.stderr or () if (found := re.search(r"http://[\w.:]+\d", line)))
        finally:
            process.terminate()


def _ask(url: str, messages: Sequence[Mapping[str, str]], **changes: Any) -> str:
    """The answer to a conversation, over HTTP."""
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)) as connection:
        body = json.dumps({"messages": messages, **_GREEDY, **changes})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = json.load(connection.getresponse())
    return str(answer["choices"][0]["message"]["content"])


def _seconds(act: Callable[..., object], *given: object) -> float:
    start = time.perf_counter()
    act(*given)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
