"""Chat in the terminal: answers as they are written, a history, a handful of commands."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from keylm.common.console import console
from keylm.common.documents import Message
from keylm.common.errors import KeyLMError, UserError
from keylm.gguf.locate import find_gguf
from keylm.serve.engine import Chunk, Engine

HELP = """\
/system TEXT        set the system prompt (no text: none)
/temperature VALUE  0: always the likeliest token; 1: the model's own distribution
/regenerate         answer the last message again
/new                forget the conversation
/save FILE          append the conversation to a JSONL file, in the form that a recipe reads
/quit               leave, as Ctrl-D does; Ctrl-C stops an answer
\"\"\"                 begins and ends a message of several lines"""

_QUOTES = '"""'


class Conversation:
    """What was said so far, and the model that answers it."""

    def __init__(self, engine: Engine, system: str, temperature: float) -> None:
        self.engine = engine
        self.system = system
        self.temperature = temperature
        self.turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """The turns, after the system prompt where there is one."""
        head: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return head + self.turns

    def say(self, text: str) -> None:
        """Add the user's turn and the answer to it; neither, if there can be no answer.

        Raises:
            KeyLMError: the message is longer than the context.
        """
        self.turns.append({"role": "user", "content": text})
        try:
            self.answer()
        except KeyLMError:
            self.turns.pop()
            raise

    def answer(self) -> None:
        """Write the assistant's turn to stdout as it comes, and add it. Ctrl-C ends it early."""
        pieces: list[str] = []
        with _interrupts() as interrupted:

            def show(chunk: Chunk) -> bool:
                if "error" in chunk:
                    raise KeyLMError(f"no answer: {chunk['error']['message']}")
                pieces.append(chunk["choices"][0]["text"])
                print(_harmless(pieces[-1]), end="", flush=True)
                return interrupted.is_set()

            self.engine.complete({"prompt": self._prompt(), "temperature": self.temperature}, show)
        print()
        self.turns.append({"role": "assistant", "content": "".join(pieces)})

    def regenerate(self) -> None:
        """Replace the last answer by another.

        Raises:
            UserError: there is none.
        """
        if not self.turns:
            raise UserError("there is no answer yet to write again")
        self.turns.pop()
        self.answer()

    def save(self, path: Path) -> None:
        """Append the conversation to a JSONL file, as one document of chat messages."""
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")

    def _prompt(self) -> list[int]:
        """Token ids of the conversation; the oldest turns are left out until a quarter of the context is free."""
        room = self.engine.header.context_length * 3 // 4
        prompt = self.engine.prompt(self.messages)
        while len(prompt) > room and len(self.turns) > 1:
            del self.turns[:2]
            prompt = self.engine.prompt(self.messages)
        return prompt


def run_chat(model: Path, system: str = "", temperature: float | None = None, num_threads: int | None = None) -> None:
    """Chat with a run, an export folder or a GGUF file. Text that is piped in is one message, answered once.

    `temperature` is the release's own by default, `num_threads` the number of physical cores.

    Raises:
        UserError: there is no GGUF to chat with.
    """
    engine = Engine(find_gguf(model), num_threads=num_threads)
    conversation = Conversation(engine, system, engine.header.temperature if temperature is None else temperature)
    try:
        if sys.stdin.isatty():
            _talk(conversation)
        else:
            conversation.say(sys.stdin.read().strip())
    finally:
        engine.close()


def _talk(conversation: Conversation) -> None:
    console.print(f"{conversation.engine.header.name}: /help lists the commands", style="dim", markup=False)
    for line in _lines():
        try:
            _act(conversation, line)
        except (KeyLMError, OSError) as error:
            console.print(str(error), style="red", markup=False)


def _lines() -> Iterator[str]:
    """What the user types, message by message, until Ctrl-D or /quit."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (imported, it gives input() a line editor and a history)
    while True:
        try:
            line = _message(input("\n› ").strip())
        except KeyboardInterrupt:
            console.print("\n[dim]/quit or Ctrl-D leaves[/dim]")
            continue
        except EOFError:
            return
        if line == "/quit":
            return
        if line:
            yield line


def _message(line: str) -> str:
    """The line itself; or, if it opens with three quotes, all that follows up to the next three."""
    if not line.startswith(_QUOTES):
        return line
    lines = [line.removeprefix(_QUOTES)]
    while not lines[-1].rstrip().endswith(_QUOTES):
        lines.append(input("… "))
    return "\n".join(lines).rstrip().removesuffix(_QUOTES).strip()


def _act(conversation: Conversation, line: str) -> None:
    command, _, argument = line.partition(" ")
    match command:
        case "/help":
            console.print(HELP, markup=False)
        case "/system":
            conversation.system = argument.strip()
        case "/temperature":
            conversation.temperature = _temperature(argument)
        case "/regenerate":
            conversation.regenerate()
        case "/new":
            conversation.turns.clear()
        case "/save":
            conversation.save(_file(argument))
        case _ if command.startswith("/") and "\n" not in line:
            raise UserError(f"{command} is not a command: /help lists them")
        case _:
            conversation.say(line)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise UserError("a temperature is a number from 0 to 10, such as `/temperature 0.7`")
    return value


def _file(text: str) -> Path:
    if not text.strip():
        raise UserError("name the file, such as `/save chat.jsonl`")
    return Path(text.strip()).expanduser()


def _harmless(text: str) -> str:
    """`text` without the control characters that would steer the terminal."""
    return "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) != "Cc")


@contextlib.contextmanager
def _interrupts() -> Iterator[Event]:
    """Turn Ctrl-C into an event while the block runs."""
    interrupted = Event()
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
