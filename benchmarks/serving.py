"""Compare `keylm serve` and `keylm chat` with llama.cpp and transformers: `python benchmarks/serving.py [PART ...]`.

Parts (all by default):
    decode: Answers of 48 tokens from F16, Q8_0, Q6_K and Q4_0 against transformers' `generate` in bfloat16.
    quiet: Streamed conversations over HTTP, one at a time and four at once, on a machine that does nothing else:
        `keylm serve` with Q8_0 and Q6_K against llama.cpp's own server with its default settings and Q8_0.
    busy: First answers over HTTP beside one busy process per core: `keylm serve` against llama.cpp's own server with
        one thread, and with a thread per core that spins for 0, 3,000 or libgomp's own 300,000 rounds. Q8_0.
    start: From the command `keylm chat`, with a line on its standard input, to the first character of the answer.

Every side runs in a process of its own. The sides take turns, one of them working at a time, in the opposite order in
every second turn. Ratios are taken within a turn: their median and, in brackets, their quartiles are shown. Above 1 is
faster. The exit code is 1 if a target is missed.

The model has the recipe's shape and random weights, so answers have a fixed length. `--text` takes a jsonl(.zst) file
with `messages`, of which the user's turns are asked; the default is generated instructions. GOMP_SPINCOUNT in the
environment replaces the engine's own setting, and is not passed to llama.cpp's own server.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
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
from typing import Any

import psutil

from keylm.common.documents import Message
from keylm.common.hardware import describe_hardware
from keylm.recipe import Recipe, load_recipe
from keylm.recipe.sources import FilesConfig
from keylm.run import Run, create

Line = tuple[str, str, str, bool]
"""What was measured, the result, the target, and whether it is met."""

Side = Callable[[int], object]
"""Does the work of a turn, given its number."""

Turn = dict[str, float]
"""Seconds by side."""

_GGUF_TYPES = ("F16", "Q8_0", "Q6_K", "Q4_0")
_ANSWER = 48
_PROMPT = 32
_LENGTH = {"max_tokens": _ANSWER, "ignore_eos": True, "temperature": 0}
_AT_ONCE = (1, 4)
_LLAMA = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[2])
params.verbosity = -1
server = xllamacpp.Server(params)
print(server.listening_address, file=sys.stderr, flush=True)
threading.Event().wait()
"""
_TRANSFORMERS = """
import json, sys, torch, transformers
transformers.utils.logging.disable_progress_bar()
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
for line in sys.stdin:
    prompt = torch.tensor([json.loads(line)])
    length = int(sys.argv[2])
    model.generate(
        prompt, attention_mask=torch.ones_like(prompt), min_new_tokens=length, max_new_tokens=length,
        do_sample=False, repetition_penalty=1.0,
    )
    print(flush=True)
"""


def main() -> None:
    """Print a line for each target."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        run = _export_random_model(load_recipe(arguments.recipe), Path(folder) / "run")
        talks = list(islice(_user_turns(arguments.text), max(_AT_ONCE) * (arguments.turns + 1)))
        parts: dict[str, Callable[[], Iterator[Line]]] = {
            "decode": lambda: _decode(run, arguments.turns),
            "quiet": lambda: _quiet(run, talks, arguments.turns),
            "busy": lambda: _busy(run, talks, arguments.turns),
            "start": lambda: _start(run, arguments.turns),
        }
        print(f"{describe_hardware()['processor']}, {psutil.cpu_count()} cores, {arguments.turns} turns", flush=True)
        missed = False
        for part in arguments.parts or parts:
            foreign, start = _foreign_seconds(), time.perf_counter()
            for name, result, target, is_met in parts[part]():
                print(f"{'ok  ' if is_met else 'MISS'} {name:<56} {result:>28}   target: {target}", flush=True)
                missed |= not is_met
            cores = (_foreign_seconds() - foreign) / (time.perf_counter() - start)
            print(f"     {part}: other processes kept {max(cores, 0):.2f} cores busy", flush=True)
    sys.exit(missed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="PART", help="decode, quiet, busy, start")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/keylm-75m.yaml"))
    parser.add_argument("--text", type=Path, help="conversations; generated instructions without it")
    parser.add_argument("--turns", type=int, default=8, help="turns of every comparison, after one to warm up")
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
        write_gguf(recipe, run.stage("tokenizer"), weights, gguf_type, gguf_path(run, gguf_type))
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


def _decode(run: Run, turns: int) -> Iterator[Line]:
    """Compare the tokens per second of each GGUF type with those of transformers."""
    with ExitStack() as stack:
        generate = stack.enter_context(_transformers(run))
        sides: dict[str, Side] = {"transformers": lambda turn: generate(_random_prompt(run, turn))}
        for gguf_type in _GGUF_TYPES:
            url = stack.enter_context(_keylm_server(run, gguf_type))
            sides[gguf_type] = partial(_complete, url, run)
        rows = _take_turns(sides, turns)
    for name in sides:
        rate = statistics.median(_ANSWER / row[name] for row in rows)
        yield _compare(rows, name, "transformers", f"{name}: {rate:.1f} tokens/s", 10 if name == "Q8_0" else None)


def _random_prompt(run: Run, turn: int) -> list[int]:
    """A prompt of its own for each turn, because a known one would be in the prompt cache."""
    return random.Random(turn).choices(range(5, run.recipe.model.vocab_size), k=_PROMPT)


def _complete(url: str, run: Run, turn: int) -> None:
    with _post(url, "/v1/completions", {"prompt": _random_prompt(run, turn), **_LENGTH}) as response:
        response.read()


def _quiet(run: Run, talks: list[list[str]], turns: int) -> Iterator[Line]:
    """Compare whole conversations with llama.cpp's own server and with `keylm serve`, one and four at once."""
    with ExitStack() as stack:
        urls = {"llama.cpp": stack.enter_context(_llama_server(run))}
        urls |= {name: stack.enter_context(_keylm_server(run, name)) for name in ("Q8_0", "Q6_K")}
        for at_once in _AT_ONCE:
            groups = [talks[start : start + at_once] for start in range(0, len(talks), at_once)]
            sides = {name: partial(_hold_conversations, url, groups) for name, url in urls.items()}
            rows = _take_turns(sides, turns)
            for name, target in (("Q8_0", 0.98), ("Q6_K", None)):
                title = f"{at_once} at once, keylm serve {name} against llama.cpp Q8_0"
                yield _compare(rows, name, "llama.cpp", title, target)


def _busy(run: Run, talks: list[list[str]], turns: int) -> Iterator[Line]:
    """Compare answers beside a busy process per core with those of llama.cpp's own server with fixed settings."""
    groups = [[talk[:1]] for talk in talks]
    with ExitStack() as stack:
        urls = {"keylm serve": stack.enter_context(_keylm_server(run, "Q8_0"))}
        urls["1 thread"] = stack.enter_context(_llama_server(run, num_threads=1))
        for spins in (0, 3_000, 300_000):
            urls[f"{spins:,} rounds"] = stack.enter_context(_llama_server(run, spins=spins))
        stack.enter_context(_busy_neighbors())
        sides = {name: partial(_hold_conversations, url, groups) for name, url in urls.items()}
        rows = _take_turns(sides, turns)
    best = min(list(sides)[1:], key=lambda name: statistics.median(row[name] for row in rows))
    for name in sides:
        rate = statistics.median(_ANSWER / row[name] for row in rows)
        title = f"busy, {name}: {rate:.1f} tokens/s, against {best}"
        yield _compare(rows, name, best, title, 0.8 if name == "keylm serve" else None)


def _start(run: Run, turns: int) -> Iterator[Line]:
    """Measure the seconds from the command `keylm chat` to the first character of the answer."""
    from keylm.gguf.locate import gguf_path

    command = [sys.executable, "-m", "keylm", "chat", str(gguf_path(run, "Q8_0"))]

    def chat(_: int) -> None:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"What is a tide?\n")
            process.stdin.close()
            process.stdout.read(1)
            process.kill()

    seconds = statistics.median(row["chat"] for row in _take_turns({"chat": chat}, turns))
    yield "seconds from `keylm chat` to the first character", f"{seconds:.2f}", "at most 1.2", seconds <= 1.2


def _take_turns(sides: Mapping[str, Side], turns: int) -> list[Turn]:
    rows = []
    for turn in range(turns + 1):
        order = reversed(sides) if turn % 2 else iter(sides)
        rows.append({name: _seconds(sides[name], turn) for name in order})
    return rows[1:]  # the first turn warms up


def _compare(rows: list[Turn], name: str, base: str, title: str, target: float | None) -> Line:
    """Say how many times as fast as `base` a side is."""
    ratios = [row[base] / row[name] for row in rows]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    result = f"{median:.2f} times ({low:.2f} to {high:.2f})"
    return title, result, f"at least {target}" if target else "-", not target or median >= target


def _seconds(side: Side, turn: int) -> float:
    start = time.perf_counter()
    side(turn)
    return time.perf_counter() - start


def _foreign_seconds() -> float:
    """Processor seconds of everything but this process and its children, since the machine started."""
    machine = psutil.cpu_times()
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    ours = [process.cpu_times() for process in processes]
    dead = ours[0].children_user + ours[0].children_system
    return machine.user + machine.nice + machine.system - dead - sum(own.user + own.system for own in ours)


def _llama_server(run: Run, num_threads: int = -1, spins: int | None = None) -> AbstractContextManager[str]:
    """llama.cpp's own server on Q8_0, with its default settings but for those that are given."""
    from keylm.gguf.locate import gguf_path

    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if spins is not None:
        environment["GOMP_SPINCOUNT"] = str(spins)
    return _server([sys.executable, "-c", _LLAMA, str(gguf_path(run, "Q8_0")), str(num_threads)], environment)


def _keylm_server(run: Run, gguf_type: str) -> AbstractContextManager[str]:
    from keylm.gguf.locate import gguf_path

    command = [sys.executable, "-m", "keylm", "serve", str(gguf_path(run, gguf_type)), "--port", "0"]
    return _server(command, dict(os.environ))


@contextmanager
def _server(command: list[str], environment: dict[str, str]) -> Iterator[str]:
    """Run a server in a process of its own, and yield the first address that it prints."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield next(match[0] for line in process.stderr or () if (match := re.search(r"http://[\w.:]+\d", line)))
        finally:
            process.terminate()


@contextmanager
def _transformers(run: Run) -> Iterator[Callable[[list[int]], None]]:
    """Run transformers in a process of its own, and yield a function that has it answer a prompt."""
    command = [sys.executable, "-c", _TRANSFORMERS, str(run.stage("export") / "transformers"), str(_ANSWER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        prompts, answers = process.stdin, process.stdout

        def generate(prompt: list[int]) -> None:
            print(json.dumps(prompt), file=prompts, flush=True)
            answers.readline()

        yield generate


@contextmanager
def _busy_neighbors() -> Iterator[None]:
    """Keep every core busy."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(psutil.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _hold_conversations(url: str, groups: list[list[list[str]]], turn: int) -> None:
    """Hold a group of conversations at the same time; each waits for an answer before its next turn."""

    def hold(turns: list[str]) -> None:
        messages: list[dict[str, str]] = []
        for content in turns:
            messages.append({"role": "user", "content": content})
            messages.append({"role": "assistant", "content": _read_answer(url, messages)})

    group = groups[turn % len(groups)]
    with ThreadPoolExecutor(len(group)) as threads:
        list(threads.map(hold, group))


def _read_answer(url: str, messages: list[dict[str, str]]) -> str:
    """Have a conversation answered as a stream of events, as the chat page does, and return the answer."""
    with _post(url, "/v1/chat/completions", {"messages": messages, "stream": True, **_LENGTH}) as response:
        events = [json.loads(line[6:]) for line in response if line.startswith(b"data: {")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])


@contextmanager
def _post(url: str, path: str, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)) as connection:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        yield connection.getresponse()


if __name__ == "__main__":
    main()
