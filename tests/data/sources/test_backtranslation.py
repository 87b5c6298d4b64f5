"""The source `backtranslation`: what it takes from its inner source, alone and inside `constrained-chat`."""

import json
from functools import partial
from pathlib import Path

from keylm.common.documents import is_held_out
from keylm.data.sources.parents import ParentSources
from keylm.data.sources.registry import read_source, source_type
from keylm.recipe.sources import BacktranslationConfig, ConstrainedChatConfig, FilesConfig

SENTENCES = (
    "{0} is a town by the sea. Many ships come to {0} in summer. The old harbor of {0} is its most beautiful part."
)


def town_source(folder: Path, **settings) -> BacktranslationConfig:
    path = folder / "towns.jsonl"
    names = [f"{first}{last}" for first in ("Al", "Bor", "Cal", "Dun", "Fen") for last in ("ton", "ham", "by", "ford")]
    texts = [f"# {name}\n\n{SENTENCES.format(name)}" for name in names]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return BacktranslationConfig(
        name="towns", from_source=FilesConfig(name="text", path=str(path), license="MIT"), **settings
    )


def test_the_inner_source_answers_for_it(tmp_path: Path) -> None:
    source = town_source(tmp_path)
    behavior = source_type(source)
    assert behavior.origin(source) == source.from_source
    assert behavior.label(source) == "text, with requests"
    assert behavior.availability(source) == source_type(source.from_source).availability(source.from_source)


def test_constrained_chat_adds_constraints_to_it(tmp_path: Path) -> None:
    source = town_source(tmp_path, text_task_fraction=0, dressed_fraction=0)
    plain, constrained = (
        list(read_source(each, 3)) for each in (source, ConstrainedChatConfig(name="chat", from_source=source))
    )
    assert len(plain) == 20
    assert len(constrained) > 10
    assert constrained != plain


def test_held_out_text_is_not_used(tmp_path: Path) -> None:
    source = town_source(tmp_path)
    texts = list(read_source(source.from_source, 0))
    held_out = [text for text in texts if is_held_out(text.digest, 0.4)]
    assert 0 < len(held_out) < len(texts)
    read = partial(read_source, seed=0, parents=ParentSources(validation_fraction=0.4))
    for outer in (source, ConstrainedChatConfig(name="chat", from_source=source)):
        said = "\n".join(document.plain for document in read(outer))
        assert not any(text.plain.split()[1] in said for text in held_out)
        assert sum(text.plain.split()[1].lower() in said.lower() for text in texts) > 5
