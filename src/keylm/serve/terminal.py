"""Chat in the terminal: streamed answers, an input history, and a few commands."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from keylm.common.console import console, printable
from keylm.common.documents import Message
from keylm.common.errors import KeyLMError, UserError
from keylm.gguf.locate import find_gguf
from keylm.serve.engine import Chunk, Engine

HELP = """\
/system TEXT        set the system prompt (no text: none)
/temperature VALUE  0 is greedy decoding, 1 the model's own distribution
/regenerate         replace the last answer
/new                start a new conversation
/save FILE          append the conversation to a JSONL file that a recipe can read
/quit               leave, as Ctrl-D does; Ctrl-C stops an answer
\"\"\"                 starts and ends a message of several lines"""

_QUOTES = '"""'


class Conversation:
    """The turns of a conversation, and the engine that answers them.

    Args:
        engine: The loaded model.
        system: The system prompt; empty for none.
        temperature: Sampling temperature; 0 is greedy.
    """

    def __init__(self, engine: Engine, system: str, temperature: float) -> None:
        self.engine = engine
        self.system = system
        self.temperature = temperature
        self.turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """The system prompt, where there is one, and the turns."""
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return system + self.turns

    def say(self, text: str) -> None:
        """Add a turn of the user and its answer; without an answer, neither is added.

        Raises:
            KeyLMError: The message is longer than the context.
        """
        self.turns.append({"role": "user", "content": text})
        try:
            self.answer()
        except KeyLMError:
            self.turns.pop()
            raise

    def answer(self) -> None:
        """Stream the assistant's turn to stdout, and add it. Ctrl-C ends the turn early, a second one the program."""
        # A conversation outgrows the context: its oldest turns are left out until a quarter is free for the answer.
        longest = self.engine.header.context_length * 3 // 4
        prompt = self.engine.prompt(self.messages)
        while len(prompt) > longest and len(self.turns) > 1:
            del self.turns[:2]
            prompt = self.engine.prompt(self.messages)

        texts: list[str] = []
        with _catch_interrupt() as interrupted:

            def print_chunk(chunk: Chunk) -> bool:
                if "error" in chunk:
                    raise KeyLMError(f"no answer: {chunk['error']['message']}")
                texts.append(chunk["choices"][0]["text"])
                print(printable(texts[-1]), end="", flush=True)
                return interrupted.is_set()

            self.engine.complete({"prompt": prompt, "temperature": self.temperature}, print_chunk)
        print()
        self.turns.append({"role": "assistant", "content": "".join(texts)})

    def regenerate(self) -> None:
        """Replace the last answer; without a new one, it stays.

        Raises:
            UserError: There is none.
        """
        if not self.turns:
            raise UserError("there is no answer yet to regenerate")
        replaced = self.turns.pop()
        try:
            self.answer()
        except KeyLMError:
            self.turns.append(replaced)
            raise

    def save(self, path: Path) -> None:
        """Append the conversation to a JSONL file, as one document of chat messages."""
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")


def run_chat(
    model: Path | None, system: str = "", temperature: float | None = None, num_threads: int | None = None
) -> None:
    """Chat with a model in the terminal. Piped text is one message, which is answered once.

    Args:
        model: A run folder, an export folder, a GGUF file or the name of a shipped model; None takes the default one.
        system: The system prompt; empty for none.
        temperature: Sampling temperature; None takes the model's own.
        num_threads: Threads that compute; None takes the number of physical cores.

    Raises:
        UserError: There is no GGUF to chat with, or the piped text is not UTF-8.
    """
    engine = Engine(find_gguf(model), num_threads=num_threads)
    conversation = Conversation(engine, system, engine.header.temperature if temperature is None else temperature)
    try:
        if not sys.stdin.isatty():
            conversation.say(_read_piped())
            return
        console.print(f"{engine.header.name}: /help lists the commands", style="dim", markup=False)
        for text in _read_inputs():
            try:
                _execute(conversation, text)
            except (KeyLMError, OSError) as error:
                console.print(str(error), style="red", markup=False)
    finally:
        engine.close()


def _read_piped() -> str:
    """Return what is piped in, which is UTF-8 whatever the locale says.

    Raises:
        UserError: It is not.
    """
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UserError(
            f"the piped text is not UTF-8 ({error.reason} at byte {error.start + 1}): convert it"
        ) from error


def _read_inputs() -> Iterator[str]:
    """Yield what the user types, command by command and message by message, until Ctrl-D or /quit."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives input() a line editor and a history)
    while True:
        try:
            text = input("\n› ").strip()
            if text.startswith(_QUOTES):
                lines = [text.removeprefix(_QUOTES)]
                while not lines[-1].rstrip().endswith(_QUOTES):
                    lines.append(input("… "))
                text = "\n".join(lines).rstrip().removesuffix(_QUOTES).strip()
        except KeyboardInterrupt:
            console.print("\n[dim]/quit or Ctrl-D leaves[/dim]")
            continue
        except EOFError:
            return
        if text == "/quit":
            return
        if text:
            yield text


def _execute(conversation: Conversation, text: str) -> None:
    """Run a command, or send a message.

    Raises:
        UserError: The command does not exist, or its argument is wrong.
    """
    command, _, argument = text.partition(" ")
    argument = argument.strip()
    match command:
        case "/help":
            console.print(HELP, markup=False)
        case "/system":
            conversation.system = argument
        case "/temperature":
            try:
                temperature = float(argument)
            except ValueError:
                temperature = -1.0
            if not 0 <= temperature <= 10:
                raise UserError("a temperature is a number from 0 to 10, such as `/temperature 0.7`")
            conversation.temperature = temperature
        case "/regenerate":
            conversation.regenerate()
        case "/new":
            conversation.turns.clear()
        case "/save":
            if not argument:
                raise UserError("name the file, such as `/save chat.jsonl`")
            conversation.save(Path(argument).expanduser())
        case _ if command.startswith("/") and "\n" not in text:
            raise UserError(f"{command} is not a command: /help lists them")
        case _:
            conversation.say(text)


@contextlib.contextmanager
def _catch_interrupt() -> Iterator[Event]:
    """Turn Ctrl-C into an event while the block runs. A second one is not held back: the answer may be stuck."""
    interrupted = Event()

    def interrupt(*_: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)
