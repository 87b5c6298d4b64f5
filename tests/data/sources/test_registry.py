"""The registry: every source type is complete, and what `read_source` adds to all of them."""

from typing import get_args

import pytest

from keylm.common.documents import Document
from keylm.common.errors import KeyLMError, MissingSourceError
from keylm.data.sources import registry
from keylm.data.sources.base import SourceType
from keylm.data.sources.progress import ReadProgress, SourceSlice
from keylm.data.sources.registry import read_available, read_source, source_type
from keylm.recipe.sources import (
    BacktranslationConfig,
    ConstrainedChatConfig,
    FilesConfig,
    HubConfig,
    InstalledDocsConfig,
    InstructionsConfig,
    RepetitionConfig,
    SourceConfig,
    TopicsConfig,
    TyposConfig,
)

HUB = HubConfig(name="hub", dataset="some/data", config="en", license="MIT")
EXAMPLES = [
    FilesConfig(name="files", path="nowhere"),
    HUB,
    InstalledDocsConfig(name="docs"),
    InstructionsConfig(name="instructions"),
    TopicsConfig(name="topics"),
    RepetitionConfig(name="repetition"),
    TyposConfig(name="typos", from_sources=["files"]),
    BacktranslationConfig(name="text", from_source=HUB),
    ConstrainedChatConfig(name="chat", from_source=HUB),
]


class Scripted(SourceType[FilesConfig]):
    """Gives these documents, and raises these errors, in order."""

    def __init__(self, *steps):
        self.steps = steps

    def read_documents(self, source, request):
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            yield Document(text=step)


@pytest.fixture
def script(monkeypatch):
    def register(*steps):
        monkeypatch.setitem(registry._SOURCE_TYPES, FilesConfig, Scripted(*steps))

    return register


def test_every_source_of_a_recipe_has_a_type():
    configs = get_args(get_args(SourceConfig)[0])
    assert {type(source) for source in EXAMPLES} == set(configs) == set(registry._SOURCE_TYPES)


@pytest.mark.parametrize("source", EXAMPLES, ids=lambda source: source.type)
def test_every_type_describes_its_sources(source, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    behavior = source_type(source)
    assert behavior.availability(source)
    assert behavior.location(source)
    assert behavior.label(source)
    assert behavior.origin(source).name in (source.name, "hub")


def test_constrained_chat_answers_for_its_inner_source(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    source = EXAMPLES[-1]
    chat = source_type(source)
    assert chat.origin(source) == HUB
    assert chat.hub_dataset(source) == "some/data"
    assert chat.availability(source) == "not downloaded"
    assert chat.label(source) == "[some/data](https://huggingface.co/datasets/some/data), with constraints"


def test_types_that_promise_examples_make_them():
    for source in EXAMPLES:
        overrides = type(source_type(source)).generate_examples is not SourceType.generate_examples
        assert overrides or not source.makes_examples


def test_max_documents_is_shared_by_the_slices(script):
    script("a", "b", "c", "d")
    source, progress = FilesConfig(name="mine", path="x", max_documents=3), ReadProgress()
    assert [document.text for document in read_source(source, 0, progress)] == ["a", "b", "c"]
    assert progress.fraction == 1
    assert len(list(read_source(source, 0, source_slice=SourceSlice(0, 2)))) == 2


@pytest.mark.parametrize(("on_missing", "is_error"), [("stop", True), ("redistribute", False)])
def test_a_missing_source_may_be_allowed(script, on_missing, is_error):
    script(MissingSourceError("it is gone"))
    source = FilesConfig(name="mine", path="x", on_missing=on_missing)
    if is_error:
        with pytest.raises(MissingSourceError, match="it is gone"):
            list(read_available(source, 0))
    else:
        assert list(read_available(source, 0)) == []


def test_a_source_that_breaks_off_is_not_a_missing_one(script):
    script("a", MissingSourceError("it is gone"))
    source = FilesConfig(name="mine", path="x", on_missing="redistribute")
    with pytest.raises(KeyLMError, match="it is gone; what was read before is kept, run again") as caught:
        list(read_available(source, 0))
    assert not isinstance(caught.value, MissingSourceError)
