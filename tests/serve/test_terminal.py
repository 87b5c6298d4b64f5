"""The terminal chat: piped, at a real pseudo-terminal, and interrupted."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from keylm.common.errors import KeyLMError, UserError
from keylm.gguf.locate import find_gguf
from keylm.run import Run
from keylm.serve.engine import Chunk, Engine, EngineError
from keylm.serve.terminal import Conversation, run_chat


class InterruptedEngine(Engine):
    """Someone presses Ctrl-C at the third piece of every answer."""

    def complete(self, request: dict, on_chunk: Callable[[Chunk], bool | None]) -> None:
        chunks: list[Chunk] = []

        def press(chunk: Chunk) -> bool | None:
            chunks.append(chunk)
            if len(chunks) == 3:
                signal.raise_signal(signal.SIGINT)
            return on_chunk(chunk)

        super().complete({**request, "ignore_eos": True}, press)
        self.num_pieces = len(chunks)


def test_piped_text_is_one_message(
    exported: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", _piped(b"Two lines,\none <|im_end|> message.\n"))
    run_chat(exported.folder, temperature=0, num_threads=1)
    prompt = engine.prompt([{"role": "user", "content": "Two lines,\none <|im_end|> message."}])
    pieces: list[Chunk] = []
    engine.complete({"prompt": prompt, "temperature": 0}, pieces.append)
    letters = [letter for piece in pieces for letter in piece["choices"][0]["text"]]
    said = "".join(letter for letter in letters if letter in "\n\t" or ord(letter) >= 160 or 32 <= ord(letter) < 127)
    assert said
    assert capsys.readouterr().out == said + "\n"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_piped_bytes_that_are_no_text_get_a_sentence(
    exported: Run, monkeypatch: pytest.MonkeyPatch, errors: str
) -> None:
    monkeypatch.setattr(sys, "stdin", _piped(b"caf\xe9", errors))
    with pytest.raises(UserError, match=r"the piped text is not UTF-8 .* at byte 4"):
        run_chat(exported.folder, num_threads=1)


def test_piped_text_is_utf_8_in_every_locale(exported: Run) -> None:
    command = [sys.executable, "-X", "utf8=0", "-m", "keylm.cli", "chat", str(exported.folder), "--threads", "1"]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, input="café".encode(), capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    done = subprocess.run(command, input=b"caf\xe9", capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def _piped(content: bytes, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), "utf-8", errors)


def test_commands_at_a_terminal(exported: Run, tmp_path: Path) -> None:
    saved = tmp_path / "chat.jsonl"
    lines = [
        "/help",
        "/temperature 0",
        "/temperature warm",
        "/nonsense",
        "/regenerate",
        "/system Be brief.",
        "Hi <|im_end|>",
        "/regenerate",
        f"/save {saved}",
        "/new",
        "/quit",
    ]
    screen = talk(exported.folder, lines)
    assert "set the system prompt" in screen
    assert "a temperature is a number" in screen
    assert "/nonsense is not a command" in screen
    assert "there is no answer yet" in screen
    system, user, assistant = json.loads(saved.read_text())["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user == {"role": "user", "content": "Hi <|im_end|>"}
    assert assistant["role"] == "assistant"


def test_three_quotes_hold_several_lines(exported: Run, tmp_path: Path) -> None:
    saved = tmp_path / "chat.jsonl"
    first = ['"""one', "", "/two <|im_end|>", 'three"""', f"/save {saved}", "/new"]
    second = ['"""', "/new", "is text", '"""', f"/save {saved}"]
    talk(exported.folder, ["/temperature 0", *first, *second, "/quit"])
    said = [json.loads(line)["messages"][0]["content"] for line in saved.read_text().splitlines()]
    assert said == ["one\n\n/two <|im_end|>\nthree", "/new\nis text"]


def test_ctrl_c_stops_the_answer_and_not_the_program(exported: Run) -> None:
    engine = InterruptedEngine(find_gguf(exported.folder), num_threads=1)
    conversation = Conversation(engine, system="", temperature=0)
    for _ in range(2):
        conversation.say("Hi")
        assert engine.num_pieces == 3
    assert [turn["role"] for turn in conversation.turns] == ["user", "assistant"] * 2
    engine.close()


def test_a_second_ctrl_c_leaves_a_stuck_answer(exported: Run) -> None:
    before = psutil.Process().children()
    with closing(Engine(find_gguf(exported.folder), num_threads=1)) as engine:
        (llama,) = set(psutil.Process().children()) - set(before)
        llama.send_signal(signal.SIGSTOP)
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        try:
            with pytest.raises(KeyboardInterrupt):
                Conversation(engine, system="", temperature=0).say("Hi")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def test_an_answer_that_fails_loses_nothing(exported: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Engine(find_gguf(exported.folder), num_threads=1)) as engine:
        conversation = Conversation(engine, system="", temperature=0)
        conversation.say("Hi")
        turns = list(conversation.turns)

        def fail(*_: object) -> None:
            raise EngineError("stuck")

        monkeypatch.setattr(engine, "complete", fail)
        for ask in (conversation.regenerate, lambda: conversation.say("And now?")):
            with pytest.raises(EngineError):
                ask()
            assert conversation.turns == turns


def test_old_turns_are_dropped_when_the_context_fills(engine: Engine) -> None:
    conversation = Conversation(engine, system="Be brief.", temperature=0)
    for number in range(8):
        conversation.say(f"Message number {number} of a long conversation, with some words in it.")
    assert 2 <= len(conversation.turns) < 16
    assert conversation.messages[0]["role"] == "system"
    assert conversation.turns[0]["role"] == "user"
    assert len(engine.prompt(conversation.messages[:-1])) <= engine.header.context_length * 3 // 4


def test_a_message_beyond_the_context_is_not_kept(engine: Engine) -> None:
    conversation = Conversation(engine, system="", temperature=0)
    with pytest.raises(KeyLMError, match="context"):
        conversation.say("long " * 1000)
    assert conversation.turns == []


def talk(model: Path, lines: list[str]) -> str:
    """Type lines into a chat at a pseudo-terminal; return what the screen showed."""
    program = (
        "from pathlib import Path; from keylm.serve.terminal import run_chat; "
        f"run_chat(Path({str(model)!r}), num_threads=1)"
    )
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    os.write(keyboard, "".join(line + "\n" for line in lines).encode())
    shown = b""
    while piece := _read(keyboard):
        shown += piece
    assert process.wait(30) == 0
    os.close(keyboard)
    return shown.decode(errors="replace")


def _read(keyboard: int) -> bytes:
    """What the screen shows next; a closed terminal is an error on Linux, and the end."""
    try:
        return os.read(keyboard, 4096)
    except OSError:
        return b""
