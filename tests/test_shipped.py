"""The models that come with the package: a stand-in everywhere, and the real ones where their weights are."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from helpers.greedy import num_equal
from helpers.shipped_models import REAL_FOLDER, placed, write_stand_ins
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from keylm import cli, shipped
from keylm.commands.import_model import import_model, open_shipped
from keylm.common.errors import KeyLMError, UserError
from keylm.common.files import CHECKSUMS, cache_folder, changed_files, write_checksums
from keylm.export.tokenizer_stress_texts import stress_texts
from keylm.export.transformers_folder import generation_config
from keylm.export.verify import LlamaCppEngine
from keylm.gguf.cache import cached_gguf
from keylm.gguf.file import read_gguf_weights
from keylm.gguf.header import read_gguf_header, read_gguf_metadata
from keylm.gguf.locate import find_gguf, gguf_path
from keylm.instructions.splits import held_out
from keylm.instructions.task import Task, assistant_message, user_message
from keylm.model.kernels.build import kernel_library
from keylm.recipe import load_recipe
from keylm.run import Run, open_run
from keylm.serve.engine import Chunk, Engine
from keylm.serve.schema import model_body
from keylm.shipped import DEFAULT, SHIPPED, ShippedModel
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import Tokenizer

ROOT = Path(__file__).parents[1]
PLACED = "from pathlib import Path; from keylm import shipped; shipped.MODELS = Path('{}')"
"""Code by which another process looks for the models in the same folder as this one."""
QUICK = {"tokens": 4096, "batch_tokens": 1024, "micro_batch_tokens": 1024}
QUESTIONS = ["What is a tide?", "Write two sentences about dogs.", "Naïve 🦊: name 3 animals, please."]


@pytest.fixture(scope="module", params=["stand-in", *SHIPPED])
def model(request: pytest.FixtureRequest, exported: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    yield from placed(request.param, exported, tmp_path_factory.mktemp("shipped"))


@pytest.fixture
def stand_in(exported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShippedModel:
    """A stand-in of one test alone, to spoil, seen from an empty working directory."""
    kernel_library()  # from the usual cache: in another one, they would be compiled again
    monkeypatch.setattr(shipped, "MODELS", write_stand_ins(exported, tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return DEFAULT


def test_hashes_hold_and_cover_every_file(model: ShippedModel) -> None:
    assert changed_files(model.folder) == []
    listed = {line.split("  ", 1)[1] for line in (model.folder / CHECKSUMS).read_text().splitlines()}
    assert listed == {path.name for path in model.folder.iterdir()} - {CHECKSUMS}
    assert {"model.safetensors", "config.json", "README.md", "recipe.yaml", "results.json"} <= listed


def test_the_recipe_beside_the_weights_is_theirs(model: ShippedModel) -> None:
    recipe = load_recipe(model.folder)
    config = json.loads((model.folder / "config.json").read_text())
    assert {key: config[key] for key in recipe.model.transformers_fields} == recipe.model.transformers_fields
    sampling = json.loads((model.folder / "generation_config.json").read_text())
    assert sampling == generation_config(recipe, Tokenizer.load(model.folder))


def test_transformers_and_llama_cpp_agree(model: ShippedModel) -> None:
    """Without remote code: token ids of stress texts, and greedy text up to the first near tie."""
    tokenizer = AutoTokenizer.from_pretrained(model.folder, trust_remote_code=False)
    network = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32, trust_remote_code=False).eval()
    # Not Q8_0, whose rounded weights choose other tokens now and then.
    path = cached_gguf(model, "F16")
    llama, ours = LlamaCppEngine(path), read_gguf_header(path).tokenizer
    texts = stress_texts(500)
    assert llama.tokenize(texts) == tokenizer(texts, verbose=False)["input_ids"]
    num_compared = 0
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        prompt = encode_messages(ours, messages, add_generation_prompt=True)[0]
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert prompt == tokenizer(rendered)["input_ids"]
        greedy = {"prompt": prompt, "n_predict": 32, "temperature": 0, "repeat_penalty": 1, "return_tokens": True}
        num_compared += num_equal(network, prompt, llama._post("/completion", **greedy)["tokens"])
    assert num_compared > 32


def test_it_answers_in_the_terminal(model: ShippedModel) -> None:
    named = [] if model == DEFAULT else [model.name]
    result = CliRunner().invoke(cli.app, ["chat", *named, "--threads", "1"], input=QUESTIONS[0], catch_exceptions=False)
    assert result.stdout.strip()


def test_it_is_served(model: ShippedModel) -> None:
    named = [] if model == DEFAULT else [model.name]
    arguments = ["serve", *named, "--port", "0", "--threads", "1"]
    code = f"{PLACED.format(shipped.MODELS)}; from keylm.cli import app; app({arguments!r})"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        url = next(line for line in process.stderr if " is at " in line).split(" is at ")[1].split()[0]
        with urllib.request.urlopen(f"{url}/v1/models") as response:
            served = json.load(response)["data"][0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert served["id"] == load_recipe(model.folder).title


def test_it_follows_instructions(model: ShippedModel) -> None:
    if model != DEFAULT or shipped.MODELS != REAL_FOLDER:
        pytest.skip("random weights and base models follow no instructions")
    with closing(Engine(find_gguf(None), num_threads=1)) as engine:
        followed = [passed for task in held_out(40, 0) for passed in task.followed(greedy_answer(engine, task))]
    assert sum(followed) >= 0.6 * len(followed)


def test_the_sampling_defaults_reach_chat_and_serve(model: ShippedModel) -> None:
    """llama.cpp takes the defaults of both from the GGUF."""
    sampling = json.loads((model.folder / "generation_config.json").read_text())
    path = find_gguf(Path(model.name))
    header, metadata = read_gguf_header(path), read_gguf_metadata(path)
    assert header.name == load_recipe(model.folder).title
    for shown in (metadata["general.sampling.penalty_repeat"], model_body(header, 0)["meta"]["repetition_penalty"]):
        assert shown == pytest.approx(sampling["repetition_penalty"])
    assert header.temperature == pytest.approx(sampling["temperature"])


def test_the_cached_gguf_holds_the_weights(model: ShippedModel) -> None:
    weights = load_file(model.folder / "model.safetensors")
    decoded = read_gguf_weights(cached_gguf(model, "BF16"), load_recipe(model.folder).model, weights)
    assert all(torch.equal(decoded[name], tensor.float()) for name, tensor in weights.items())


def test_the_cached_gguf_is_the_exported_one(stand_in: ShippedModel, exported: Run) -> None:
    assert find_gguf(None).read_bytes() == gguf_path(exported, "Q8_0").read_bytes()


def test_the_gguf_is_made_once(stand_in: ShippedModel) -> None:
    path = find_gguf(None)
    made = path.stat().st_ino
    assert find_gguf(None) == find_gguf(Path("keylm-nano")) == path
    assert path.stat().st_ino == made
    assert list(cache_folder().iterdir()) == [path]


@pytest.mark.parametrize("damage", [lambda data: data[:5000], lambda data: data[:-1] + b"!", lambda data: b""])
def test_a_damaged_gguf_is_made_again(stand_in: ShippedModel, damage) -> None:
    path = find_gguf(None)
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert find_gguf(None) == path
    assert path.read_bytes() == content


def test_other_weights_have_another_gguf(stand_in: ShippedModel) -> None:
    first, path = find_gguf(None), stand_in.folder / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "lm_head.weight": weights["lm_head.weight"].flip(0)}, path)
    write_checksums(stand_in.folder, (file.name for file in stand_in.folder.iterdir() if file.name != CHECKSUMS))
    # All but the last part of the name says what the file is made from.
    assert find_gguf(None).name.rpartition("-")[0] != first.name.rpartition("-")[0]


def test_making_the_gguf_does_not_load_torch(stand_in: ShippedModel) -> None:
    code = (
        f"{PLACED.format(shipped.MODELS)}; import sys; from keylm.gguf.locate import find_gguf; find_gguf(None)\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_damaged_weights_are_named(stand_in: ShippedModel) -> None:
    path = stand_in.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(KeyLMError, match=r"model\.safetensors is damaged"):
        find_gguf(None)


def test_a_cache_that_cannot_be_written_is_named(stand_in: ShippedModel, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set XDG_CACHE_HOME"):
        find_gguf(None)


@pytest.mark.parametrize(
    "arguments", [["chat"], ["serve"], *([command, "keylm-nano"] for command in ("chat", "eval", "import", "export"))]
)
def test_without_weights_one_sentence_says_so(arguments: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shipped, "MODELS", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, arguments)
    assert isinstance(result.exception, UserError)
    assert "the weights of keylm-nano are not in" in str(result.exception)


def test_a_folder_of_that_name_goes_first(stand_in: ShippedModel, exported: Run) -> None:
    Path("keylm-nano").symlink_to(exported.folder)
    assert find_gguf(Path("keylm-nano")) == Path("keylm-nano/export") / gguf_path(exported, "Q8_0").name
    assert find_gguf(None).parent == cache_folder()


def test_a_name_that_is_none_lists_those_that_are(stand_in: ShippedModel) -> None:
    with pytest.raises(UserError, match="or one of keylm-nano, keylm-nano-base"):
        find_gguf(Path("keylm-mini"))


def test_eval_takes_it_by_name(stand_in: ShippedModel) -> None:
    result = CliRunner().invoke(cli.app, ["eval", "keylm-nano", "--limit", "1", "--json", "scores.json"])
    assert result.exit_code == 0, result.output
    scores = json.loads(Path("scores.json").read_text())
    assert scores["instruction_following"]
    assert scores["sha256"].keys() == {"model.safetensors"}


@pytest.mark.parametrize("name", SHIPPED)
def test_export_writes_it_where_the_user_says(stand_in: ShippedModel, name: str) -> None:
    for _ in range(2):  # the second time, all is there
        result = CliRunner().invoke(cli.app, ["export", name, "--run", "mine", "--set", "export.gguf=[Q8_0]"])
        assert result.exit_code == 0, result.output
    written, folder = Path("mine/export"), SHIPPED[name].folder
    for file in ("model.safetensors", "tokenizer.json", "config.json", "generation_config.json", "README.md"):
        theirs = (folder / file).read_bytes()
        assert (written / "transformers" / file).read_bytes() == theirs, file
    assert (written / f"{name}-Q8_0.gguf").exists()
    assert read_gguf_metadata(written / f"{name}-Q8_0.gguf")["general.license"] == "apache-2.0"


def test_export_does_not_write_into_another_run(stand_in: ShippedModel, tmp_path: Path, exported: Run) -> None:
    import_model(str(stand_in.folder), Path("runs/keylm-nano"))
    with pytest.raises(UserError, match="name another one with --run"):
        open_shipped(stand_in)


@pytest.mark.parametrize("num_chats", [5, 300])
def test_it_is_trained_further_on_own_files(stand_in: ShippedModel, num_chats: int) -> None:
    """By the commands and the recipe of docs/export.md, with settings that take seconds."""
    chats = [[user_message(f"What is {n}?"), assistant_message(f"It is {n}, I think. " * 3)] for n in range(num_chats)]
    Path("chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    Path("texts").mkdir()
    for number in range(9):
        Path("texts", f"{number}.txt").write_text(f"{number} is one more than {number - 1}, as everybody knows. " * 99)
    section = (ROOT / "docs" / "export.md").read_text().partition("## Training a model further")[2]
    Path("mine.yaml").write_text(section.split("```yaml\n")[1].split("```")[0])
    commands = [shlex.split(line)[1:] for line in section.splitlines() if line.startswith("    .venv/bin/keylm ")]
    sizes = [f"{part}.{name}={size}" for part in ("train", "sft") for name, size in QUICK.items()]
    sizes += ["eval.instructions=2", "eval.max_new_tokens=4", "eval.typo_passages=2", "eval.typo_instructions=1"]
    quick = [argument for size in sizes for argument in ("--set", size)]
    assert [command[0] for command in commands] == ["import", "run", "chat"]
    for command, options in zip(commands, ([], quick, ["--temperature", "0"]), strict=True):
        result = CliRunner().invoke(cli.app, [*command, *options], input=QUESTIONS[0], catch_exceptions=False)
        assert result.exit_code == 0
    run = open_run(Path("runs/mine"))
    before, after = load_file(stand_in.folder / "model.safetensors"), load_file(run.weights("sft"))
    assert not torch.equal(before["lm_head.weight"].float(), after["lm_head.weight"])
    metadata = read_gguf_metadata(find_gguf(run.folder))
    assert metadata["general.name"] == "mine"
    assert metadata["general.license"] == "apache-2.0"
    assert "fine-tuned with KeyLM" in (run.stage("export") / "README.md").read_text()


def test_wheels_have_the_default_model_only() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert f"models/{DEFAULT.name}/*" in settings["package-data"]["keylm"]
    assert settings["exclude-package-data"]["keylm"] == [f"models/{name}/*" for name in SHIPPED if name != DEFAULT.name]


@pytest.mark.skipif(not any((REAL_FOLDER / name).exists() for name in SHIPPED), reason="there are no weights")
def test_the_models_take_at_most_60_megabytes() -> None:
    assert sum(path.stat().st_size for path in REAL_FOLDER.rglob("*")) < 60e6


def greedy_answer(engine: Engine, task: Task) -> str:
    """The answer to a task, with the repetition penalty as shipped."""
    chunks: list[Chunk] = []
    engine.complete({"prompt": engine.prompt(task.messages), "temperature": 0, "max_tokens": 160}, chunks.append)
    return "".join(chunk["choices"][0]["text"] for chunk in chunks)
