"""Compare `keylm serve` with llama.cpp and transformers: `python benchmarks/serving.py [PART ...]`.

Parts (all by default):
    overhead: HTTP against llama.cpp in the same process, with the same loaded model.
    decode: F16, Q8_0, Q6_K and Q4_0 against transformers' `generate` in bfloat16.
    chat: Conversations over HTTP, one at a time and four at once: `keylm serve` with Q8_0, Q6_K and Q4_0 against
        llama.cpp's own server with its default settings and Q8_0.
    start: From the command to the first answer.

The two sides of a comparison take turns, ratios are taken within a turn, and their median is shown. The exit code is 1
if a target is missed.

The model has the recipe's shape and random weights, so answers have a fixed length. `--text` takes a jsonl(.zst) file
with `messages`, of which the user's turns are asked; the default is generated instructions. GOMP_SPINCOUNT in the
environment replaces the engine's own setting, and is never passed to llama.cpp's own server.
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
"""What was measured, the result, the target, and whether it is met."""

_GGUF_TYPES = ("F16", "Q8_0", "Q6_K", "Q4_0")
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
    """Print a line for each target."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        run = _export_random_model(load_recipe(arguments.recipe), Path(folder) / "run")
        talks = list(islice(_user_turns(arguments.text), arguments.turns))
        parts: dict[str, Callable[[], list[Line]]] = {
            "overhead": lambda: _overhead(run, talks, arguments.turns),
            "decode": lambda: _decode(run, arguments.turns),
            "chat": lambda: _chat(run, talks),
            "start": lambda: _start(run),
        }
        missed = False
        for part in arguments.parts or parts:
            for name, result, target, is_met in parts[part]():
                print(f"{'ok  ' if is_met else 'MISS'} {name:<52} {result:>24}   target: {target}", flush=True)
                missed |= not is_met
    sys.exit(missed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="PART", help="overhead, decode, chat, start")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/keylm-75m.yaml"))
    parser.add_argument("--text", type=Path, help="conversations; generated instructions without it")
    parser.add_argument("--turns", type=int, default=8, help="conversations, and repetitions of every comparison")
    return parser.parse_args()


def _export_random_model(recipe: Recipe, folder: Path) -> Run:
    """Export random weights, with a tokenizer trained on the documentation of this environment's packages."""
    import torch

    from keylm.data.sources import installed_docs
    from keylm.data.sources.progress import ReadProgress
    from keylm.export.transformers_folder import write_transformers_folder
    from keylm.gguf.file import write_gguf
    from keylm.gguf.locate import gguf_path
    from keylm.model.initialization import init_model
    from keylm.tokenizer.training import train_tokenizer

    run = create(recipe, folder)
    texts = (document.plain for document in islice(installed_docs.read_installed_docs(ReadProgress()), 2000))
    tokenizer = train_tokenizer(texts, recipe.model.vocab_size, recipe.tokenizer.pre_tokenizer)
    tokenizer.save(run.stage("tokenizer"), recipe.model.max_position_embeddings)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in init_model(recipe.model, 0).state_dict().items()}
    run.stage("export").mkdir()
    write_transformers_folder(run, weights, run.stage("export") / "transformers")
    for gguf_type in _GGUF_TYPES:
        write_gguf(run, weights, gguf_type, gguf_path(run, gguf_type))
    return run


def _user_turns(text: Path | None) -> Iterator[list[str]]:
    """Yield the user's turns of conversations: two to six, short enough for the context with all answers."""
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
        source = FilesConfig(name="talks", type="files", path=str(text))
        yield from (document.messages or () for document in read_files(source, ReadProgress()))


def _overhead(run: Run, talks: list[list[str]], turns: int) -> list[Line]:
    """Compare the seconds of an answer over HTTP with those of the same answer from the engine itself."""
    from keylm.gguf.locate import gguf_path
    from keylm.serve.engine import Engine
    from keylm.serve.server import Server, open_port

    with closing(Engine(gguf_path(run, "Q8_0"), 4)) as engine:
        listener = open_port("127.0.0.1", 0)
        server = Server(engine, listener)
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        ratios = []
        for turn in range(turns + 1):
            messages = [{"role": "user", "content": talks[turn % len(talks)][0]}]
            prompt = engine.prompt(messages)
            request = {**_GREEDY, "prompt": prompt}
            engine.complete(request, lambda _: None)  # puts the prompt into the cache, for both
            bare = _seconds(engine.complete, request, lambda _: None)
            ratios.append(_seconds(_ask, server.url, messages) / bare)
        server.should_exit = True
        thread.join()
    extra = statistics.median(ratios[1:]) - 1
    return [("overhead of HTTP over llama.cpp in the process", f"{extra:+.1%}", "under 3%", extra < 0.03)]


def _decode(run: Run, turns: int) -> list[Line]:
    """Compare the tokens per second of each GGUF type with those of transformers, one answer each in turn."""
    import torch  # before the engine, which sets GOMP_SPINCOUNT for what is loaded later
    from transformers import AutoModelForCausalLM

    from keylm.gguf.locate import gguf_path
    from keylm.serve.engine import Engine

    model = AutoModelForCausalLM.from_pretrained(run.stage("export") / "transformers", dtype=torch.bfloat16)
    prompt = torch.arange(5, 37)[None]
    length = {"min_new_tokens": _ANSWER, "max_new_tokens": _ANSWER, "do_sample": False, "repetition_penalty": 1.0}

    def generate() -> None:
        model.generate(prompt, attention_mask=torch.ones_like(prompt), **length)

    engines = {name: Engine(gguf_path(run, name)) for name in _GGUF_TYPES}
    request = {**_GREEDY, "prompt": prompt[0].tolist(), "cache_prompt": False}
    sides: dict[str, Callable[[], None]] = {"transformers": generate}
    sides |= {name: partial(engine.complete, request, lambda _: None) for name, engine in engines.items()}
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
    """Compare whole conversations with llama.cpp's own server and with `keylm serve`, one and four at a time."""
    with ExitStack() as stack:
        llama_url = stack.enter_context(_llama_server(run))
        urls = {name: stack.enter_context(_keylm_server(run, name)) for name in ("Q8_0", "Q6_K", "Q4_0")}
        return [_race(llama_url, url, name, at_once, talks) for at_once in (1, 4) for name, url in urls.items()]


def _race(llama_url: str, keylm_url: str, gguf_type: str, at_once: int, talks: list[list[str]]) -> Line:
    groups = [talks[start : start + at_once] for start in range(0, len(talks), at_once)]
    seconds = [[_seconds(_talk, url, group) for url in (llama_url, keylm_url)] for group in groups]
    times = statistics.median(slow / fast for slow, fast in seconds)
    name = f"conversations, {at_once} at a time, {gguf_type} against llama.cpp's Q8_0"
    return name, f"{times:.2f} times as fast", "at least 1.3 times", times >= 1.3


def _llama_server(run: Run) -> AbstractContextManager[str]:
    """llama.cpp's own server with its default settings, on Q8_0."""
    from keylm.gguf.locate import gguf_path

    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    return _server([sys.executable, "-c", _LLAMA, str(gguf_path(run, "Q8_0"))], environment)


def _keylm_server(run: Run, gguf_type: str) -> AbstractContextManager[str]:
    from keylm.gguf.locate import gguf_path

    command = [sys.executable, "-m", "keylm", "serve", str(gguf_path(run, gguf_type)), "--port", "0"]
    return _server(command, dict(os.environ))


def _talk(url: str, group: list[list[str]]) -> None:
    """Hold conversations at the same time; each waits for an answer before its next turn."""

    def hold(turns: list[str]) -> None:
        messages: list[dict[str, str]] = []
        for turn in turns:
            messages.append({"role": "user", "content": turn})
            messages.append({"role": "assistant", "content": _ask(url, messages)})

    with ThreadPoolExecutor(len(group)) as threads:
        list(threads.map(hold, group))


def _start(run: Run) -> list[Line]:
    """Measure the seconds from the command to the first answer."""
    messages = [{"role": "user", "content": "What is a tide?"}]

    def first_answer() -> float:
        start = time.perf_counter()
        with _keylm_server(run, "Q8_0") as url:
            _ask(url, messages, max_tokens=1)
            return time.perf_counter() - start

    seconds = statistics.median([first_answer() for _ in range(6)][1:])
    return [("seconds from the command to the first answer", f"{seconds:.2f}", "under 2", seconds < 2)]


@contextmanager
def _server(command: list[str], environment: dict[str, str]) -> Iterator[str]:
    """Run a server in a process of its own, and yield the first address that it prints."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield next(match[0] for line in process.stderr or () if (match := re.search(r"http://[\w.:]+\d", line)))
        finally:
            process.terminate()


def _ask(url: str, messages: Sequence[Mapping[str, str]], **changes: Any) -> str:
    """Return the answer to a conversation, over HTTP."""
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)) as connection:
        body = json.dumps({"messages": messages, **_GREEDY, **changes})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = json.load(connection.getresponse())
    return str(answer["choices"][0]["message"]["content"])


def _seconds(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
