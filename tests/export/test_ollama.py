"""Ollama's Modelfile."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest

from keylm.export.ollama import TEMPLATE
from keylm.export.verify import CONVERSATIONS
from keylm.run import Run
from keylm.tokenizer.chat_template import render


def test_the_template_matches_the_chat_template(exported: Run) -> None:
    """Ollama's template, translated to Jinja word by word, renders as ours does."""
    modelfile = (exported.stage("export") / "Modelfile").read_text()
    go = modelfile.split('"""')[1]
    jinja_of_go = {
        "{{- range .Messages }}": "{%- for message in messages %}",
        "{{ .Role }}": "{{ message.role }}",
        "{{ .Content }}": "{{ message.content }}",
        "{{ end }}": "{% endfor %}",
    }
    for word, jinja in jinja_of_go.items():
        assert go.count(word) == 1
        go = go.replace(word, jinja)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi\n"}]
    template = jinja2.Environment(keep_trailing_newline=True).from_string(go)
    assert template.render(messages=messages) == render(messages, add_generation_prompt=True)


def test_the_modelfile_names_its_gguf_and_stops(exported: Run) -> None:
    folder = exported.stage("export")
    lines = (folder / "Modelfile").read_text().splitlines()
    assert (folder / lines[0].removeprefix("FROM ./")).is_file()
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert 'PARAMETER stop "<|endoftext|>"' in lines
    assert f"PARAMETER num_ctx {exported.recipe.model.max_position_embeddings}" in lines
    assert f"PARAMETER repeat_penalty {exported.recipe.export.repetition_penalty}" in lines


def test_go_renders_the_same_bytes(exported: Run) -> None:
    """Ollama renders templates with Go's text/template."""
    if not shutil.which("go"):
        pytest.skip("go is not installed")
    program = Path(__file__).parents[1] / "helpers" / "render.go"
    for messages in CONVERSATIONS:
        request = json.dumps({"Template": TEMPLATE, "Messages": messages})
        result = subprocess.run(["go", "run", program], input=request.encode(), capture_output=True)
        assert result.returncode == 0, result.stderr.decode()
        assert result.stdout.decode() == render(messages, add_generation_prompt=True)
    assert f'TEMPLATE """{TEMPLATE}"""' in (exported.stage("export") / "Modelfile").read_text()
