"""Verification: a correct export passes on 20,000 stress texts, and a wrong one does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_run import tiny_run
from safetensors.torch import load_file, save_file

from keylm.common.errors import KeyLMError
from keylm.export import verify
from keylm.export.stage import run_export
from keylm.export.tokenizer_stress_texts import stress_texts
from keylm.export.verify import LlamaCppEngine, TransformersEngine, verify_export
from keylm.gguf import file
from keylm.gguf.file import write_gguf
from keylm.gguf.locate import gguf_path
from keylm.run import Run
from keylm.tokenizer.tokenizer import SPLIT_REGEX


@pytest.mark.parametrize("regex", SPLIT_REGEX)
def test_engines_agree_with_training(regex: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "NUM_TEXTS", 20_000)
    run = tiny_run(tmp_path / "run", regex, export={"gguf": ["F32", "F16"]})
    verification = run_export(run)["verification"]
    assert verification["texts"] == 20_000
    transformers, llama_f32, llama_f16 = verification["differences"].values()
    assert transformers < 1e-4
    assert llama_f32 < 5e-4
    assert llama_f16 < 2e-2
    card = (run.stage("export") / "README.md").read_text()
    assert f"| llama.cpp, F16 | equal | equal | {llama_f16:.2g} |" in card
    assert f"| llama.cpp, F32 | equal | equal | {llama_f32:.2g} |" in card


@pytest.mark.slow
def test_transformers_4_agrees_with_transformers_5(exported: Run, tmp_path: Path) -> None:
    """transformers 4.57 and what it depends on are installed in a folder of their own, first on the path."""
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
        f"engine = verify.TransformersEngine(Path({str(exported.stage('export') / 'transformers')!r}))\n"
        "results = [engine.tokenize(stress_texts(20_000)), engine.render_conversations()]\n"
        "print(json.dumps([transformers.__version__, *results, engine.top_logprobs([5, 6, 7])]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    version, ids, rendered, top_logprobs = json.loads(result.stdout)
    installed = TransformersEngine(exported.stage("export") / "transformers")
    assert version == "4.57.6"
    assert ids == installed.tokenize(stress_texts(20_000))
    assert rendered == installed.render_conversations()
    for (token, logprob), expected in zip(top_logprobs, installed.top_logprobs([5, 6, 7]), strict=True):
        assert token == expected[0]
        assert logprob == pytest.approx(expected[1], abs=1e-5)


def test_a_wrong_split_regex_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GGUF that names another regex loads without an error, but tokenizes some texts differently."""
    run = tiny_run(tmp_path / "run", export={"gguf": ["F16"]})
    recipe = run.recipe.model_copy(
        update={"tokenizer": run.recipe.tokenizer.model_copy(update={"pre_tokenizer": "gpt-2"})}
    )
    write = write_gguf
    monkeypatch.setattr(file, "write_gguf", lambda _, *rest: write(recipe, *rest))
    with pytest.raises(KeyLMError, match=r"the export is wrong: llama\.cpp, F16 turns .* into \["):
        run_export(run)


def test_a_wrong_chat_template_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(tmp_path / "run", export={"gguf": ["F16"]})
    monkeypatch.setattr(file, "CHAT_TEMPLATE", file.CHAT_TEMPLATE.replace("'\\n' }}", "' ' }}"))
    with pytest.raises(KeyLMError, match=r"llama\.cpp, F16 turns .* into '<\|im_start\|>user"):
        run_export(run)


def test_wrong_weights_are_seen(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", export={"gguf": []})
    run_export(run)
    path = run.stage("export") / "transformers" / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "lm_head.weight": weights["lm_head.weight"].flip(0)}, path, metadata={"format": "pt"})
    assert max(verify_export(run, weights)["differences"].values()) > 0.1


def test_joined_texts_are_split_again(exported: Run) -> None:
    """Texts are sent to llama.cpp joined by the end-of-text token, which some of them contain."""
    llama = LlamaCppEngine(gguf_path(exported, "F16"))
    texts = ["a", "", "<|endoftext|>", "b<|endoftext|><|endoftext|>c", "<|endof", "text|>", ""]
    assert llama.tokenize(texts) == [llama.tokenize([text])[0] for text in texts]
