"""The export stage as a whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from helpers.tiny_run import tiny_run

from keylm.common.errors import UserError
from keylm.export.stage import CHECKSUMS, run_export
from keylm.gguf.locate import best_to_run
from keylm.run import Run


def test_facts_and_checksums_cover_every_file(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    facts = run_export(run)
    folder = run.stage("export")
    released = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(facts["files"]) == released - {"begun.json", CHECKSUMS}
    assert all((folder / name).stat().st_size == fact["bytes"] for name, fact in facts["files"].items())
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", CHECKSUMS], cwd=folder, check=True)


def test_exporting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    assert run_export(run) == run_export(run)


def test_without_weights_it_says_what_to_run(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    run.weights("sft").unlink()
    with pytest.raises(UserError, match="run `keylm sft"):
        run_export(run)


def test_q8_is_preferred_for_chatting() -> None:
    paths = [Path(f"m-{kind}.gguf") for kind in ("F32", "F16", "Q8_0", "Q4_0")]
    assert best_to_run(paths).name == "m-Q8_0.gguf"
    assert best_to_run(paths[:2]).name == "m-F16.gguf"


def test_modelfile_says_what_the_chat_template_says(exported: Run) -> None:
    """Ollama's template, put into Jinja word by word, renders as ours does."""
    import jinja2

    from keylm.tokenizer.chat_template import render

    modelfile = (exported.stage("export") / "Modelfile").read_text()
    go = modelfile.split('"""')[1]
    words = {
        "{{- range .Messages }}": "{%- for message in messages %}",
        "{{ .Role }}": "{{ message.role }}",
        "{{ .Content }}": "{{ message.content }}",
        "{{ end }}": "{% endfor %}",
    }
    for theirs, jinja in words.items():
        assert go.count(theirs) == 1
        go = go.replace(theirs, jinja)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi\n"}]
    template = jinja2.Environment(keep_trailing_newline=True).from_string(go)
    assert template.render(messages=messages) == render(messages, add_generation_prompt=True)


def test_modelfile_names_its_gguf_and_stops(exported: Run) -> None:
    folder = exported.stage("export")
    lines = (folder / "Modelfile").read_text().splitlines()
    assert (folder / lines[0].removeprefix("FROM ./")).is_file()
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert 'PARAMETER stop "<|endoftext|>"' in lines
    assert f"PARAMETER num_ctx {exported.recipe.model.max_position_embeddings}" in lines
    assert f"PARAMETER repeat_penalty {exported.recipe.export.repetition_penalty}" in lines
