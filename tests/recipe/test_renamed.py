"""Recipes of earlier versions: every renamed key and value gets one sentence that gives the new name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from keylm import cli
from keylm.recipe.base import Config

SECTIONS: dict[str, tuple[str, ...]] = {
    "TrainConfig": ("train",),
    "OptimizerConfig": ("train", "optimizer"),
    "SftConfig": ("sft",),
    "DpoConfig": ("dpo",),
    "GrpoConfig": ("grpo",),
    "EvalConfig": ("eval",),
}
"""Where the sections with renamed keys stand in a recipe."""

SOURCE_TYPES = {
    "FilesConfig": "files",
    "HubConfig": "hub",
    "InstalledDocsConfig": "installed-docs",
    "InstructionsConfig": "instructions",
    "TopicsConfig": "topics",
    "RepetitionConfig": "repetition",
    "TyposConfig": "typos",
    "BacktranslationConfig": "backtranslation",
    "ConstrainedChatConfig": "constrained-chat",
}
"""The source types, which stand in `data.sources`."""

BASES = {"BaseSourceConfig", "PosttrainConfig"}
"""Classes that are no section by themselves."""


def all_configs(base: type[Config] = Config) -> Iterator[type[Config]]:
    for config in base.__subclasses__():
        yield config
        yield from all_configs(config)


def renamed_keys(config: type[Config]) -> dict[str, str]:
    return {old: new for base in config.__mro__ for old, new in getattr(base, "renamed_keys", {}).items()}


def renamed_values(config: type[Config]) -> list[tuple[str, str, str]]:
    tables = [getattr(base, "renamed_values", {}) for base in config.__mro__]
    return sorted({(key, old, new) for table in tables for key, values in table.items() for old, new in values.items()})


SHIPPED = [
    config for config in all_configs() if config.__module__.startswith("keylm.recipe.") and config.__name__ not in BASES
]
KEYS = [(config.__name__, old, new) for config in SHIPPED for old, new in renamed_keys(config).items()]
VALUES = [(config.__name__, *row) for config in SHIPPED for row in renamed_values(config)]


def recipe_with(config: str, key: str, value: Any) -> tuple[dict[str, Any], str]:
    """A recipe with `key: value` in the section of that class, and how messages name the section."""
    if config in SOURCE_TYPES:
        source = {"name": "mine", "type": SOURCE_TYPES[config], key: value}
        if key == "kind":
            del source["type"]
        return {"name": "old", "data": {"sources": [source]}}, "data.sources.0"
    section: dict[str, Any] = {key: value}
    for parent in reversed(SECTIONS[config]):
        section = {parent: section}
    return {"name": "old", **section}, ".".join(SECTIONS[config])


def message_of(recipe: dict[str, Any], path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line prints about the recipe."""
    path.write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(sys, "argv", ["keylm", "sources", str(path)])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("config", "old", "new"), KEYS, ids=[f"{config}.{old}" for config, old, _ in KEYS])
def test_a_renamed_key_is_named(tmp_path: Path, monkeypatch, capsys, config: str, old: str, new: str) -> None:
    recipe, section = recipe_with(config, old, "anything")
    path = tmp_path / "old.yaml"
    message = message_of(recipe, path, monkeypatch, capsys)
    assert message == f"keylm: {path}: `{section}`: the key `{old}` is now called `{new}`\n"


@pytest.mark.parametrize(("config", "key", "old", "new"), VALUES, ids=[f"{row[0]}.{row[2]}" for row in VALUES])
def test_a_renamed_value_is_named(tmp_path: Path, monkeypatch, capsys, config, key: str, old: str, new: str) -> None:
    recipe, section = recipe_with(config, key, old)
    path = tmp_path / "old.yaml"
    message = message_of(recipe, path, monkeypatch, capsys)
    assert message == f"keylm: {path}: `{section}`: the value `{old}` of `{key}` is now called `{new}`\n"


def test_a_source_within_a_source_is_checked_too(tmp_path: Path, monkeypatch, capsys) -> None:
    inner = {"name": "leads", "kind": "files", "path": "x"}
    source = {"name": "mine", "type": "constrained-chat", "from_source": inner}
    path = tmp_path / "old.yaml"
    message = message_of({"name": "old", "data": {"sources": [source]}}, path, monkeypatch, capsys)
    assert message == f"keylm: {path}: `data.sources.0.from_source`: the key `kind` is now called `type`\n"


@pytest.mark.parametrize("config", SHIPPED, ids=lambda config: config.__name__)
def test_new_names_exist_and_old_names_do_not(config: type[Config]) -> None:
    fields = config.model_fields
    assert set(renamed_keys(config).values()) <= set(fields)
    assert not set(renamed_keys(config)) & set(fields)
    for key, old, new in renamed_values(config):
        choices = list(getattr(fields[key].annotation, "__args__", ()))
        assert old not in choices
        # A source's type is one of the types of all sources, and each class has one of them.
        assert new in choices or (key == "type" and new in SOURCE_TYPES.values())


def test_every_section_with_renamed_names_is_covered() -> None:
    covered = {config for config, *_ in [*KEYS, *VALUES]}
    assert covered <= {*SECTIONS, *SOURCE_TYPES}
    assert len(KEYS) > 30
    assert {old for _, old, _ in KEYS} == {
        *("gradient_clip", "max_gradient_norm", "mask_documents", "keep_checkpoints", "keep_every", "answers", "pairs"),
        *("kind", "missing", "entry", "keep", "drop", "trees", "kinds", "of"),
    }
