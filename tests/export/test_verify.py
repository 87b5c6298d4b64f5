"""The proof that goes with a release: it holds for 20,000 awkward texts, and it would not hold for a wrong export."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from helpers.tiny_run import tiny_run
from safetensors.torch import load_file, save_file

from keylm.common.errors import KeyLMError
from keylm.export import verify
from keylm.export.ollama import TEMPLATE
from keylm.export.stage import run_export
from keylm.export.tokenizer_stress_texts import stress_texts
from keylm.export.verify import CONVERSATIONS, NUM_TEXTS, Llama, Transformers, verify_export
from keylm.gguf import file
from keylm.gguf.file import write_gguf
from keylm.gguf.locate import gguf_path
from keylm.run import Run
from keylm.tokenizer.chat_template import render
from keylm.tokenizer.tokenizer import CONTROL_TOKENS, SPLIT_REGEX


def test_texts_hold_every_code_point_and_broken_control_strings() -> None:
    sample = stress_texts(NUM_TEXTS)
    letters = set("".join(sample))
    assert all(chr(code) in letters for code in range(0x110000) if unicodedata.category(chr(code))[0] not in "C")
    assert sample == stress_texts(NUM_TEXTS)
    for string in (*CONTROL_TOKENS, "<|im_end |>", "\u200d", "\r\n", "\x00"):
        assert sum(string in text for text in sample) > 3


@pytest.mark.parametrize("regex", SPLIT_REGEX)
def test_three_programs_agree(regex: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "NUM_TEXTS", 20_000)
    run = tiny_run(tmp_path / "run", regex, export={"gguf": ["F32", "F16"]})
    checked = run_export(run)["checked"]
    assert checked["texts"] == 20_000
    own, exact, half = checked["differences"].values()
    assert own < 1e-4
    assert exact < 5e-4
    assert half < 2e-2
    card = (run.stage("export") / "README.md").read_text()
    assert f"| llama.cpp, F16 | equal | equal | {half:.2g} |" in card
    assert f"| llama.cpp, F32 | equal | equal | {exact:.2g} |" in card


@pytest.mark.slow
def test_transformers_4_agrees_with_transformers_5(exported: Run, tmp_path: Path) -> None:
    """transformers 4.57 lies in a folder of its own, with the versions that it needs, before everything else."""
    old = ["transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub==0.36.0"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), *old]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("PyPI cannot be reached")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import json, transformers\n"
        "from pathlib import Path\n"
        "from keylm.export import verify\n"
        "from keylm.export.tokenizer_stress_texts import stress_texts\n"
        f"theirs = verify.Transformers(Path({str(exported.stage('export') / 'transformers')!r}))\n"
        "found = [theirs.tokenize(stress_texts(20_000)), theirs.render(), theirs.likeliest([5, 6, 7])]\n"
        "print(json.dumps([transformers.__version__, *found]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    version, ids, rendered, likeliest = json.loads(result.stdout)
    ours = Transformers(exported.stage("export") / "transformers")
    assert version == "4.57.6"
    assert ids == ours.tokenize(stress_texts(20_000))
    assert rendered == ours.render()
    for (token, value), (ours_token, ours_value) in zip(likeliest, ours.likeliest([5, 6, 7]), strict=True):
        assert token == ours_token
        assert value == pytest.approx(ours_value, abs=1e-5)


def test_another_split_regex_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GGUF that names another regex loads everywhere, and reads some texts otherwise."""
    run = tiny_run(tmp_path / "run", export={"gguf": ["F16"]})
    recipe = run.recipe.model_copy(
        update={"tokenizer": run.recipe.tokenizer.model_copy(update={"pre_tokenizer": "gpt-2"})}
    )
    write = write_gguf
    monkeypatch.setattr(file, "write_gguf", lambda run, *rest: write(Run(run.folder, recipe), *rest))
    with pytest.raises(KeyLMError, match=r"the export is wrong: llama\.cpp, F16 makes \["):
        run_export(run)


def test_another_template_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(tmp_path / "run", export={"gguf": ["F16"]})
    monkeypatch.setattr(file, "CHAT_TEMPLATE", file.CHAT_TEMPLATE.replace("'\\n' }}", "' ' }}"))
    with pytest.raises(KeyLMError, match=r"llama\.cpp, F16 makes '<\|im_start\|>user"):
        run_export(run)


def test_other_weights_would_be_seen(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", export={"gguf": []})
    run_export(run)
    path = run.stage("export") / "transformers" / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "lm_head.weight": weights["lm_head.weight"].flip(0)}, path, metadata={"format": "pt"})
    assert max(verify_export(run, weights)["differences"].values()) > 0.1


def test_ollama_renders_the_same_bytes(exported: Run) -> None:
    """By Go's own text/template."""
    if not shutil.which("go"):
        pytest.skip("go is not installed")
    program = Path(__file__).parents[1] / "helpers" / "render.go"
    for messages in CONVERSATIONS:
        asked = json.dumps({"Template": TEMPLATE, "Messages": messages})
        result = subprocess.run(["go", "run", program], input=asked.encode(), capture_output=True)
        assert result.returncode == 0, result.stderr.decode()
        assert result.stdout.decode() == render(messages, add_generation_prompt=True)
    assert f'TEMPLATE """{TEMPLATE}"""' in (exported.stage("export") / "Modelfile").read_text()


def test_every_engine_reads_each_text_by_itself(exported: Run) -> None:
    """Texts are sent to llama.cpp joined by end-of-text, which some of them hold themselves."""
    llama = Llama(gguf_path(exported, "F16"))
    sample = ["a", "", "<|endoftext|>", "b<|endoftext|><|endoftext|>c", "<|endof", "text|>", ""]
    assert llama.tokenize(sample) == [llama.tokenize([text])[0] for text in sample]
