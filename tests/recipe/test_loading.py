"""The recipe: the shipped files, overrides, and the sentence for every mistake."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from keylm.common.errors import UserError
from keylm.recipe import dump_recipe, load_recipe
from keylm.recipe.eval import EvalConfig
from keylm.run import open_run
from keylm.shipped import recipe_names

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_survive_a_round_trip(path: Path, tmp_path: Path) -> None:
    loaded = load_recipe(path)
    assert loaded.name == path.stem
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_recipe(loaded))
    assert load_recipe(copy) == loaded


def test_the_folder_of_task_data_may_name_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_DATA", "/data")
    assert EvalConfig(data="$MY_DATA/eval").data_folder == Path("/data/eval")
    assert EvalConfig(data="~/eval").data_folder == Path.home() / "eval"
    assert EvalConfig().data_folder is None
    monkeypatch.delenv("MY_DATA")
    with pytest.raises(UserError, match=r"`eval.data` is \$MY_DATA/eval, and .* MY_DATA is not set"):
        _ = EvalConfig(data="$MY_DATA/eval").data_folder


def test_the_published_recipe_has_the_published_shares() -> None:
    loaded = load_recipe(ROOT / "recipes" / "keylm-75m.yaml")
    shares: dict[str, float] = {}
    for source in loaded.data.sources:
        shares[source.category] = shares.get(source.category, 0) + source.weight
    published = {"formal": 0.30, "casual": 0.30, "conversational": 0.25, "knowledge": 0.05, "typos": 0.10}
    assert shares == pytest.approx(published)
    assert loaded.train.tokens == 18_000_000_000


def test_overrides_reach_any_field() -> None:
    overrides = [
        "train.tokens=2e6",
        "train.optimizer.type=adamw",
        "data.sources.installed-docs.weight=0.25",
        "data.sources.1.num_documents=5e3",
        "eval.tasks=[piqa]",
    ]
    changed = load_recipe(ROOT / "recipes" / "quickstart.yaml", overrides)
    assert changed.train.tokens == 2_000_000
    assert changed.train.optimizer.type == "adamw"
    assert changed.data.sources[0].weight == 0.25
    assert changed.data.sources[1].num_documents == 5000
    assert changed.eval.tasks == ["piqa"]


MISTAKES = {
    "train.tokns=1": "`train.tokns` is not a key of a recipe",
    "train.tokens=-1": "`train.tokens`: .*greater than",
    "train.tokens=many": "`train.tokens`: .*many",
    "data.sources.0.weight=-1": r"weight`: .*greater than or equal to 0 \(given: -1\)",
    "model.num_key_value_heads=3": "must be a multiple of num_key_value_heads",
    "model.head_dim=7": "head_dim must be even",
    "model.vocab_size=70000": "vocab_size must lie between",
    "train.batch_tokens=1000": "batch_tokens must be a multiple of sequence_length",
    "model.max_position_embeddings=256": "train.sequence_length is longer than model.max_position_embeddings",
    "train.phases=[{until: 0.5, weights: {}}]": "phases must have rising `until`",
    "train.phases=[{until: 1, weights: {nobody: 1}}]": "names `nobody`, which is not one of its sources",
    "train.phases=[{until: 1, sequence_length: 100}]": "sequence_length of 100 must divide",
    "sft.phases=[{until: 1, sequence_length: 64}]": "needs `packing: concat`",
    "data.sources.0.type=magic": r"`data.sources.0.type`: there is no source type `magic`, only 'files', 'hub'",
    "data.sources.0={name: mine}": r"`data.sources.0` has no `type`; `keylm docs recipe` lists",
    "data.sources.0={name: mine, type: hub, dataset: a/b, weight: -1}": "`data.sources.0.weight`: .*greater than",
    "data.sources.0={name: mine, type: hub, preset: [a]}": r"`data.sources.0.preset`: Input should be a valid string",
    "data.sources.0={name: mine, type: hub}": r"`data.sources.0.dataset`: Field required",
    "train.tokes=1": "`train.tokes` is not a key of a recipe; did you mean `tokens`",
    "train.optimizer.weigth_decay=1": "did you mean `weight_decay`",
    "tokens=1": "`tokens` is not a key of a recipe; did you mean `tokenizer`",
    "learning_rate=1": "`learning_rate` is not a key of a recipe; did you mean `dpo.learning_rate`",
    "data.sources.0={name: mine, type: files, pth: a}": r"`data.sources.0.pth` is not a key of a recipe; .* `path`",
    "data.sources.0.num_documents=1": "did you mean `max_documents`",
    "data.qqqq=1": "`data.qqqq` is not a key of a recipe; `keylm docs recipe` lists them all",
    "data.sources.nobody.weight=1": "the list has no item `nobody`",
    "train.tokens": "write it as key=value",
    "train.tokens=[": "the value is not valid YAML",
    "data.sources.0.name.x=1": "`name` is a value, not a section",
    "name.x=1": "`name` is a value, not a section",
}


@pytest.mark.parametrize(("override", "sentence"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_gets_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        load_recipe(ROOT / "recipes" / "quickstart.yaml", [override])
    assert "\n" not in str(caught.value)


def test_a_recipe_that_comes_with_the_package_is_loaded_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe_names() == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    assert load_recipe(Path("quickstart")).name == "quickstart"
    assert open_run(Path("quickstart")).folder == Path("runs/quickstart")
    # What is here goes first.
    Path("quickstart").mkdir()
    with pytest.raises(UserError, match="quickstart is not a run"):
        load_recipe(Path("quickstart"))


def test_an_override_within_a_value_is_refused() -> None:
    overrides = ["eval.tasks=[piqa]", "eval.tasks.0.x=1"]
    with pytest.raises(UserError, match="`0` is a value, not a section"):
        load_recipe(ROOT / "recipes" / "quickstart.yaml", overrides)


def test_a_file_that_is_no_recipe_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no recipe .*absent.yaml; those that come with KeyLM are .*quickstart"):
        load_recipe(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML") as caught:
        load_recipe(broken)
    assert "\n" not in str(caught.value)
    broken.write_bytes(b"name: caf\xe9")
    with pytest.raises(UserError, match=r"broken.yaml is not UTF-8 text"):
        load_recipe(broken)
    broken.write_text("just words")
    with pytest.raises(UserError, match="is not a recipe"):
        load_recipe(broken)


def test_the_page_of_fields_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "make_recipe_page.py"))["page"]
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == page()


def test_every_field_is_documented() -> None:
    sections = runpy.run_path(str(ROOT / "docs" / "make_recipe_page.py"))["SECTIONS"]
    for part in sections.values():
        for name, field in part.model_fields.items():
            assert field.description or name == "type", f"{part.__name__}.{name}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: x\nname: y\n", "the key `name` occurs twice"),
        ("name: x\ntrain: {tokens: 1e6, tokens: 2e6}\n", "the key `tokens` occurs twice"),
        ("name: " + "[" * 5_000, "not valid YAML"),
        ("name: x\nseed: " + "9" * 5_000 + "\n", "not valid YAML"),
        ("name: x\ntrain: {optimizer: {weight_decay: .nan}}\n", "finite"),
        ("name: x\ntrain: {optimizer: {weight_decay: .inf}}\n", "finite"),
    ],
)
def test_what_yaml_takes_in_silence_is_refused(tmp_path, text, sentence):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        load_recipe(tmp_path / "recipe.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "recipe.yaml").write_text("name: x\ntitle: Grüße\n", encoding=encoding)
    with pytest.raises(UserError, match="not UTF-8"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    "override", ["name=[a", "train.tokens=" + "9" * 5_000, "name=" + "[" * 5_000, "train={a: 1, a: 2}"]
)
def test_an_override_that_is_not_yaml_is_refused(tmp_path, override):
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    with pytest.raises(UserError, match="the value is not valid YAML") as caught:
        load_recipe(tmp_path / "recipe.yaml", [override])
    assert len(str(caught.value)) < 600


def test_merge_keys_and_anchors_are_no_second_keys(tmp_path):
    text = "name: x\nsft: &sizes {sequence_length: 128}\ntrain: {<<: *sizes, <<: *sizes, sequence_length: 64}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(tmp_path / "recipe.yaml").train.sequence_length == 64
