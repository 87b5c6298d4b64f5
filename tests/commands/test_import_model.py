"""Importing: what was exported comes back as it was, and what is not of this graph is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.tiny_run import TEXTS, tiny_run
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from keylm.commands.import_model import import_model, show_next_steps
from keylm.commands.report import write_results
from keylm.common.errors import UserError
from keylm.common.folder_lock import lock_folder
from keylm.export.stage import run_export
from keylm.instructions.task import assistant_message, user_message
from keylm.model.transformer import load_model
from keylm.run import IMPORTED, Run, open_run
from keylm.stages import run_all, run_until, training_stages
from keylm.tokenizer.tokenizer import Tokenizer
from keylm.train.stages import run_pretrain


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished export."""
    run = tiny_run(tmp_path_factory.mktemp("runs") / "tiny")
    run_export(run)
    return run


@pytest.fixture
def folder(released: Run, tmp_path: Path) -> Path:
    """A copy of its transformers folder, to spoil."""
    return Path(shutil.copytree(released.stage("export") / "transformers", tmp_path / "Tiny Model"))


def test_export_import_export_changes_nothing(released: Run, folder: Path, tmp_path: Path) -> None:
    run = import_model(str(folder), tmp_path / "run")
    run_until(run, "export")
    first, second = (exported_run.stage("export") / "transformers" for exported_run in (released, run))
    before, after = (load_file(exported / "model.safetensors") for exported in (first, second))
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    ours, theirs = (Tokenizer.load(exported) for exported in (first, second))
    assert [ours.encode(text) for text in TEXTS] == [theirs.encode(text) for text in TEXTS]
    configs = [json.loads((exported / "config.json").read_text()) for exported in (first, second)]
    assert configs[0] == configs[1]
    assert (first / "generation_config.json").read_text() == (second / "generation_config.json").read_text()


def test_the_card_says_where_the_weights_came_from(folder: Path, tmp_path: Path) -> None:
    run = import_model(str(folder), tmp_path / "run")
    run_until(run, "export")
    card = (run.stage("export") / "README.md").read_text()
    assert "imported from `Tiny Model`" in card
    assert "license: other" in card
    assert "from scratch" not in card
    assert "Pretraining read" not in card


def test_what_is_published_names_no_folder_of_this_machine(folder: Path, tmp_path: Path) -> None:
    run = import_model(str(folder), tmp_path / "run")
    run_until(run, "export")
    published = [run.stage("export") / name for name in run.metadata("export")["files"]]
    assert len(published) > 8
    for path in published:
        data = path.read_bytes()
        assert str(tmp_path).encode() not in data, path.name
        assert str(Path.home()).encode() + b"/" not in data, path.name


def test_the_report_says_what_was_imported(folder: Path, tmp_path: Path) -> None:
    run = import_model(str(folder), tmp_path / "run")
    write_results(run)
    results = json.loads((run.folder / "results.json").read_text())
    assert results["imported"] == dict.fromkeys(("tokenizer", "pretrain", "sft"), str(folder))
    assert results["stages"] == results["tokens"]["trained"] == {}
    page = (run.folder / "report.html").read_text()
    assert f"Imported from <code>{folder}</code>, not trained here: tokenizer, pretrain, sft." in page
    for absent in ("tokens of pretraining", "Mixture", "Time and memory"):
        assert absent not in page


def test_a_model_brings_no_sources(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = import_model(str(folder), tmp_path / "run")
    assert run.recipe.name == "tiny-model"
    assert not run.recipe.data.sources
    assert not run.recipe.sft.sources
    assert [run.is_done(stage) for stage in ("tokenizer", "prepare", "pretrain", "sft")] == [True, False, True, True]
    show_next_steps(run)
    screen = capsys.readouterr().err
    assert f"keylm run {run.folder} --set sft.tokens=2e5 --set 'sft.sources=[{{name: chats.jsonl," in screen
    changed = open_run(run.folder, ["sft.sources=[{name: chats, type: files, path: chats.jsonl}]"])
    assert [changed.is_done(stage) for stage in ("pretrain", "sft")] == [True, False]
    show_next_steps(changed)
    assert "train it on chats" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sections", "trained"),
    [(("data",), ["pretrain"]), (("sft",), ["sft"]), (("data", "sft"), ["pretrain", "sft"])],
    ids=lambda part: "-".join(part),
)
def test_three_lines_train_a_model_further(
    folder: Path, tmp_path: Path, sections: tuple[str, ...], trained: list[str]
) -> None:
    """At a learning rate of almost zero the weights stay where they were, so training began from the imported ones."""
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(TEXTS[:60]):
        (tmp_path / "texts" / f"{number}.txt").write_text(text)
    chats = [[user_message(f"What is {number}?"), assistant_message(f"{number} is a number.")] for number in range(60)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    lines = {
        "data": f"data: {{sources: [{{name: texts, type: files, path: {tmp_path}/texts/*.txt}}]}}",
        "sft": f"sft: {{sources: [{{name: chats, type: files, path: {tmp_path}/chats.jsonl}}]}}",
    }
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("\n".join(["name: mine", *(lines[section] for section in sections)]))
    run = import_model(str(folder), tmp_path / "run", recipe)
    assert (run.recipe.name, run.recipe.title) == ("mine", "")
    short = [
        "tokens=512",
        "batch_tokens=256",
        "micro_batch_tokens=256",
        "optimizer={type: adamw, learning_rate_scale: 1e-6}",
    ]
    quick = ["eval.instructions=0", "eval.typo_passages=0", "eval.typo_instructions=0", "eval.num_answers=0"]
    run = open_run(run.folder, [f"{section}.{override}" for section in ("train", "sft") for override in short] + quick)
    run_all(run)
    assert [
        stage for stage in ("pretrain", "sft") if run.is_finished(stage) and not run.imported_from(stage)
    ] == trained
    imported, released = (load_file(run.weights(stage)) for stage in (IMPORTED, training_stages(run)[-1]))
    assert training_stages(run)[-1] == trained[-1]
    assert any(not torch.equal(tensor, released[name]) for name, tensor in imported.items())
    for name, tensor in imported.items():
        torch.testing.assert_close(released[name], tensor, atol=1e-4, rtol=1e-3)
    write_results(run)
    card = (run.stage("export") / "README.md").read_text()
    assert "fine-tuned with KeyLM" in card
    assert "imported from `Tiny Model`" in card
    assert ("Pretraining read" in card, "Supervised fine-tuning read" in card) == (
        "data" in sections,
        "sft" in sections,
    )


def test_what_a_recipe_gets_wrong_is_named_by_its_file(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\nsft: {token: 5}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: `sft\.token` is not a key"):
        import_model(str(folder), tmp_path / "run", recipe)
    assert not (tmp_path / "run").exists()


def test_training_does_not_begin_without_the_imported_weights(folder: Path, tmp_path: Path) -> None:
    """As in a run that an earlier version imported."""
    run = import_model(str(folder), tmp_path / "run")
    shutil.rmtree(run.stage(IMPORTED))
    with pytest.raises(UserError, match="has no imported weights: import the model again, into another run folder"):
        run_pretrain(run)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_of_transformers_give_its_logits(folder: Path, tmp_path: Path, dtype, tied: bool) -> None:
    """As transformers 5 writes them: `rope_parameters` only, tied or not, in any precision, in several files."""
    rope = {"rope_type": "default", "rope_theta": 777.0}
    config = Qwen3Config.from_pretrained(folder, tie_word_embeddings=tied, rope_parameters=rope)
    Qwen3ForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size="300KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    (folder / "model.safetensors").unlink()
    run = import_model(str(folder), tmp_path / "run")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(3, config.vocab_size, (2, 40))
    with torch.no_grad():
        expected = theirs(tokens).logits
    torch.testing.assert_close(
        load_model(run.recipe.model, run.weights("sft")).logits(tokens), expected, atol=1e-4, rtol=1e-3
    )


def test_rope_theta_of_transformers_4_is_read(folder: Path, tmp_path: Path) -> None:
    _edit(folder / "config.json", lambda config: config.pop("rope_parameters"))
    assert import_model(str(folder), tmp_path / "run").recipe.model.rope_theta == 5000.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda config: config.update(model_type="llama"), 'model_type "llama", and here it can only be "qwen3"'),
        (lambda config: config.update(attention_bias=True), "attention_bias true"),
        (lambda config: config.update(use_sliding_window=True), "use_sliding_window true"),
        (lambda config: config["rope_parameters"].update(rope_type="yarn"), 'rope_type "yarn"'),
        (lambda config: config.update(vocab_size=151_936), "65,536"),
        (lambda config: config.update(intermediate_size=128), "mlp.down_proj.weight in .* is "),
        (lambda config: config.update(num_hidden_layers=3), "model.layers.2.* is absent"),
    ],
)
def test_another_graph_is_refused_by_name(folder: Path, tmp_path: Path, change: Callable, sentence: str) -> None:
    _edit(folder / "config.json", change)
    with pytest.raises(UserError, match=sentence):
        import_model(str(folder), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda saved: saved.update(normalizer={"type": "NFC"}), "changes text"),
        (lambda saved: saved.update(decoder={"type": "Metaspace"}), "changes text"),
        (lambda saved: saved["model"].update(byte_fallback=True), "byte_fallback true"),
        (lambda saved: saved["added_tokens"][1].update(content="<|user|>"), "control tokens"),
        (lambda saved: saved["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\w+"), "a way of its own"),
        (lambda saved: saved.update(post_processor={"type": "TemplateProcessing"}), "puts tokens around"),
    ],
)
def test_another_tokenizer_is_refused_by_name(folder: Path, tmp_path: Path, change: Callable, sentence: str) -> None:
    _edit(folder / "tokenizer.json", change)
    with pytest.raises(UserError, match=sentence):
        import_model(str(folder), tmp_path / "run")


def test_a_tensor_too_many_is_named(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "model.layers.0.self_attn.q_proj.bias": torch.zeros(8)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"q_proj.bias in .* is \(8,\), and by its config.json it is not of this graph"):
        import_model(str(folder), tmp_path / "run")


def test_what_is_not_there_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a folder nor a model"):
        import_model("me/nothing", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no config\.json"):
        import_model(str(tmp_path / "empty"), tmp_path / "run")


def test_a_run_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    import_model(str(folder), tmp_path / "run")
    with pytest.raises(UserError, match="is a run already"):
        import_model(str(folder), tmp_path / "run")


def test_a_run_in_use_is_not_imported_into(folder: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path / "run"), pytest.raises(UserError, match="is in use by process"):
        import_model(str(folder), tmp_path / "run")


def _edit(path: Path, change: Callable) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("max_shard_size", ["5GB", "100KB"])
def test_what_transformers_saves_of_our_export_is_imported(folder: Path, tmp_path: Path, dtype, max_shard_size) -> None:
    """Model and tokenizer loaded and saved again, as every fine-tuning outside ends."""
    resaved = tmp_path / "saved again"
    AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).save_pretrained(resaved, max_shard_size=max_shard_size)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # What a trainer's collator leaves behind.
    tokenizer(TEXTS[:2], padding=True, truncation=True, max_length=4)
    tokenizer.save_pretrained(resaved)
    # Beside the model, trainers keep more.
    save_file({"base.lora_A.weight": torch.zeros(2, 2)}, resaved / "adapter_model.safetensors")
    run = import_model(str(resaved), tmp_path / "run")
    ours, theirs = load_file(run.weights("sft")), load_file(folder / "model.safetensors")
    assert all(torch.allclose(ours[name], theirs[name].float(), rtol=1e-2, atol=1e-2) for name in theirs)
    before, after = Tokenizer.load(folder), Tokenizer.load(run.stage("tokenizer"))
    assert [before.encode(text) for text in TEXTS] == [after.encode(text) for text in TEXTS]
    assert before.encode_batch(TEXTS) == after.encode_batch(TEXTS)


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5_000])


def _make_pointer(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


def _lose_shard(folder: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder / "again", max_shard_size="100KB")
    for path in (folder / "again").glob("model*"):
        path.rename(folder / path.name)
    (folder / "model.safetensors").unlink()
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_cut, r"model\.safetensors is damaged or was cut off"),
        (lambda folder: _make_pointer(folder, "model.safetensors"), r"model\.safetensors is a Git LFS pointer"),
        (lambda folder: _make_pointer(folder, "tokenizer.json"), r"tokenizer\.json is a Git LFS pointer"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "has no model.safetensors",
        ),
        (_lose_shard, r"model-00002-of-.*\.safetensors is missing"),
        (
            lambda folder: _edit(folder / "config.json", lambda config: config.pop("max_position_embeddings")),
            "config.json has no max_position_embeddings",
        ),
    ],
)
def test_a_damaged_folder_is_refused_by_name(folder: Path, tmp_path: Path, damage: Callable, sentence: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=sentence):
        import_model(str(folder), tmp_path / "run")
    assert not (tmp_path / "run").exists()
