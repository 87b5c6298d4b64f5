"""Texts and chats as people have them: English in a few files, one thing beside them that is no text."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics


def write_texts(folder: Path, num_bytes: int = 200_000) -> Path:
    """A folder with text in two files, a picture of a page, a note that is too short, and a copy."""
    folder.mkdir()
    text = "\n\n".join(topics.values())
    assert len(text) >= num_bytes + 3000
    half = num_bytes // 2
    (folder / "first.txt").write_text(text[:half])
    (folder / "second.md").write_text(text[half:num_bytes])
    (folder / "scan.pdf").write_bytes(b"%PDF-1.4")
    (folder / "short.txt").write_text("Hello.")
    for name in ("note.md", "copy of the note.md"):
        (folder / name).write_text(text[num_bytes : num_bytes + 3000])
    return folder


def write_chats(path: Path, count: int = 200) -> Path:
    """Conversations of one turn, each different."""
    things = ("river", "stone", "house", "garden", "tree", "letter", "lamp", "boat", "door", "road")
    with path.open("w") as file:
        for number in range(count):
            here, there = things[number % 10], things[number // 10 % 10]
            turns = [
                {"role": "user", "content": f"Where is {here} {number}?"},
                {"role": "assistant", "content": f"It is behind the {there}, my friend, as ever."},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path
