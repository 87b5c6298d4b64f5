"""The documentation names only what exists: files, modules, functions, links, recipe keys."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import TypeAdapter

from keylm.recipe import Recipe, load_recipe
from keylm.recipe.base import Config
from keylm.recipe.sources import SourceConfig

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

LINK = re.compile(r"\]\(([^)\s]+)\)")
REPOSITORY_PATH = re.compile(
    r"(?<![\w/.~])((?:src/keylm|keylm|recipes|benchmarks|tests)/[\w./-]*\w|docs/[\w-]+\.(?:md|png|py))(?!\w)"
)
DOTTED_NAME = re.compile(r"\bkeylm(?:\.[A-Za-z_]\w*)+")
IMPORT = re.compile(r"^\s*from (keylm[\w.]*) import ([\w, ]+)$", re.MULTILINE)
YAML_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
OVERRIDE = re.compile(r"--set '?([a-z_][\w.-]*)=")
EXPERIMENT = re.compile(r"## \d{4}-\d\d-\d\d - .+ - (positive|negative|mixed) - [0-9a-f]{7}")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@every_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if ":" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@every_page
def test_named_files_exist(page: Path) -> None:
    paths = set(REPOSITORY_PATH.findall(page.read_text()))
    assert not {path for path in paths if not ((ROOT / path).exists() or (ROOT / "src" / path).exists())}


@every_page
def test_named_modules_and_functions_exist(page: Path) -> None:
    text = page.read_text()
    names = set(DOTTED_NAME.findall(text))
    for module, imported in IMPORT.findall(text):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    assert not {name for name in names if not exists(name)}


@every_page
def test_yaml_blocks_are_valid_recipes(page: Path, tmp_path: Path) -> None:
    for block in YAML_BLOCK.findall(page.read_text()):
        check_yaml(block, tmp_path / "recipe.yaml")


@every_page
def test_overridden_keys_are_keys_of_a_recipe(page: Path) -> None:
    keys = set(OVERRIDE.findall(page.read_text()))
    assert not {key for key in keys if not is_recipe_key(key.split("."), [Recipe])}


def test_the_log_has_one_form() -> None:
    lines = (ROOT / "docs" / "log.md").read_text().splitlines()
    headings = [line for line in lines if line.startswith("## ")]
    assert not [line for line in headings if not EXPERIMENT.fullmatch(line)]
    assert [line[3:13] for line in headings] == sorted((line[3:13] for line in headings), reverse=True)
    assert not [line for line in lines if line.startswith("|") and line.count("|") > 6]


def test_the_changelog_lists_every_renamed_key() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    renamed = {pair for config in all_configs(Config) for pair in vars(config).get("renamed_keys", {}).items()}
    assert renamed
    assert not [(old, new) for old, new in renamed if not re.search(rf"\| `{old}`[^|]*\| `{new}` \|", changelog)]


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    listed = set(LINK.findall(index.read_text()))
    assert {page.name for page in index.parent.glob("*.md")} - {"index.md"} <= listed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("keylm.model", True),
        ("keylm.model.loss", True),
        ("keylm.model.loss.linear_cross_entropy", True),
        ("keylm.model.transformer.KeyLM.forward", True),
        ("keylm.model.loss.no_such_function", False),
        ("keylm.no_such_module", False),
    ],
)
def test_names_are_looked_up_in_the_sources(name: str, expected: bool) -> None:
    assert exists(name) == expected


def check_yaml(block: str, path: Path) -> None:
    """Load a whole recipe, or validate sections or a list of sources of one; other YAML is not ours to judge."""
    values = yaml.safe_load(block)
    if isinstance(values, dict) and values.keys() <= Recipe.model_fields.keys():
        if "name" in values:
            path.write_text(block)
            load_recipe(path)
            return
        for key, value in values.items():
            TypeAdapter(Recipe.model_fields[key].annotation).validate_python(value)
    elif isinstance(values, list):
        source: TypeAdapter[Any] = TypeAdapter(SourceConfig)
        for value in values:
            source.validate_python(value)


def is_recipe_key(parts: list[str], configs: list[type[Config]]) -> bool:
    """Whether a path such as `train.tokens` or `data.sources.NAME.weight` leads to a field."""
    head, *rest = parts
    annotations = [config.model_fields[head].annotation for config in configs if head in config.model_fields]
    if any(get_origin(annotation) is list for annotation in annotations):
        # An item of a list is named, not typed.
        rest = rest[1:]
    sections = [section for annotation in annotations for section in configs_in(annotation)]
    return bool(annotations) and (not rest or not sections or is_recipe_key(rest, sections))


def all_configs(base: type[Config]) -> list[type[Config]]:
    """Every section of a recipe that derives from `base`."""
    return [config for child in base.__subclasses__() for config in (child, *all_configs(child))]


def configs_in(annotation: Any) -> list[type[Config]]:
    """The sections of a recipe that a field's annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [config for argument in get_args(annotation) for config in configs_in(argument)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(name: str) -> bool:
    """Whether a dotted name is a module of the package, or is defined in one; nothing is imported."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        base = ROOT / "src" / Path(*parts[:length])
        file = next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()), None)
        if file:
            return ".".join(parts[length:]) in {"", *definitions(file)}
    return False


@cache
def definitions(file: Path) -> set[str]:
    """What a module defines or imports at its top level, and `Class.member` of its classes."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        names |= bound_names(node)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{member}" for part in node.body for member in bound_names(part)}
    return names


def bound_names(node: ast.stmt) -> set[str]:
    """The names that a statement binds."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.Import() | ast.ImportFrom():
            return {alias.asname or alias.name for alias in node.names}
        case ast.Assign():
            return {target.id for target in node.targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()
