"""`keylm new`: what it finds in one's texts, the size it picks, and the recipe that it writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.own_texts import write_chats, write_texts
from helpers.screen import assert_readable

from keylm.commands import new
from keylm.commands.plan import Data, epochs, make_plan
from keylm.common.errors import UserError
from keylm.evaluate.bits_per_byte import xz_bits
from keylm.model.flops import num_matmul_parameters
from keylm.recipe import load_recipe
from keylm.recipe.model import ModelConfig
from keylm.recipe.train import TrainConfig


def seconds_per_token(model: ModelConfig, training: TrainConfig) -> float:
    """A machine of 100 GFLOP/s."""
    return 6 * num_matmul_parameters(model) / 1e11


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts and chats, to work in, on a machine whose speed and memory are known."""
    write_texts(tmp_path / "my texts")
    write_chats(tmp_path / "chats.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new, "_measure", seconds_per_token)
    monkeypatch.setattr(new, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(new, "resident_memory_bytes", lambda: 300 * 2**20)
    return tmp_path


def write(*, chat: bool = False, minutes: float = 10) -> Path:
    return new.write_new_recipe("mine", ["my texts"], ["chats.jsonl"] if chat else [], minutes)


def test_the_screen_says_what_is_left_out_and_what_to_do_next(workplace: Path) -> None:
    def again() -> None:
        Path("mine.yaml").unlink(missing_ok=True)
        write(chat=True)

    screen = " ".join(assert_readable(again).split())
    assert "1 .pdf (not a format that is read)" in screen
    assert "1 too short" in screen
    assert "1 duplicate" in screen
    assert "3 .md, 2 .txt" in screen
    assert "200 documents" in screen
    assert "keylm run mine.yaml" in screen


def test_the_recipe_says_what_it_expects(workplace: Path) -> None:
    text = write().read_text()
    comments = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    assert comments.startswith("Made by `keylm new mine --text 'my texts' --minutes 10`")
    expected = comments.partition("expected: ")[2]
    assert "minutes" in expected
    assert "GiB" in expected
    text_bytes = b"".join(path.read_bytes() for path in sorted(Path("my texts").glob("*.*")))
    xz = float(expected.partition("xz -9e: ")[2][:3])
    assert xz == pytest.approx(xz_bits(text_bytes) / len(text_bytes), abs=0.1)
    assert max(map(len, text.splitlines())) <= 120


def test_without_chats_the_model_is_taught_to_answer(workplace: Path) -> None:
    recipe = load_recipe(write())
    assert [source.type for source in recipe.data.sources] == ["files", "instructions"]
    assert recipe.data.sources[0].weight == pytest.approx(0.6)
    assert "instructions" in {source.type for source in recipe.sft.sources}
    assert recipe.eval.instructions > 0


def test_with_chats_the_model_learns_nothing_else(workplace: Path) -> None:
    recipe = load_recipe(write(chat=True))
    assert [source.type for source in recipe.data.sources] == ["files", "files"]
    assert [source.name for source in recipe.sft.sources] == ["chat"]
    # What is not taught is not graded.
    assert recipe.eval.instructions == recipe.eval.typo_passages == recipe.eval.typo_instructions == 0


def test_text_that_the_time_is_too_short_for_is_read_in_part(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_recipe(write()).data.sources[0].max_bytes is None
    Path("mine.yaml").unlink()
    monkeypatch.setattr(new, "_measure", lambda model, training: 10 * seconds_per_token(model, training))
    max_bytes = load_recipe(write(minutes=0.5)).data.sources[0].max_bytes
    assert max_bytes
    assert 30_000 < max_bytes < 150_000


def test_a_recipe_is_never_overwritten(workplace: Path) -> None:
    Path("mine.yaml").write_text("precious")
    with pytest.raises(UserError, match=r"mine\.yaml is there already"):
        write()
    assert Path("mine.yaml").read_text() == "precious"


@pytest.mark.parametrize("name", ["Mine", "my model", "../mine", ""])
def test_a_name_that_no_run_can_have_is_refused(name: str, workplace: Path) -> None:
    with pytest.raises(UserError, match="lowercase"):
        new.write_new_recipe(name, ["my texts"], [], 10)
    assert not list(workplace.glob("*.yaml"))


def test_too_little_text_is_one_sentence(workplace: Path) -> None:
    Path("few").mkdir()
    for number in range(3):
        Path(f"few/{number}.txt").write_text(f"This is the text number {number}, and all there is.")
    with pytest.raises(UserError, match="too few, or too uniform"):
        new.write_new_recipe("mine", ["few"], [], 10)
    with pytest.raises(UserError, match="has 1 document that"):
        new.write_new_recipe("mine", ["few/0.txt"], [], 10)


def test_without_a_terminal_the_texts_must_be_named(workplace: Path) -> None:
    result = subprocess.run([sys.executable, "-m", "keylm", "new", "mine"], capture_output=True, text=True, input="")
    assert result.returncode == 2
    assert "--text PATH" in result.stderr


def test_more_time_gives_larger_models_and_longer_trainings() -> None:
    data = Data(tokens=10**10, share=1.0, sft_tokens=None)
    plans = [make_plan(data, 4096, 512, minutes, seconds_per_token) for minutes in (1, 10, 100, 1000, 10_000)]
    sizes = [num_matmul_parameters(plan.model) for plan in plans]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 10 * sizes[0]
    for minutes, plan in zip((1, 10, 100, 1000, 10_000), plans, strict=True):
        assert plan.seconds == pytest.approx(60 * minutes, rel=0.02)
    assert [plan.bits_per_byte for plan in plans] == sorted((plan.bits_per_byte for plan in plans), reverse=True)


def test_little_text_is_not_learned_by_heart() -> None:
    data = Data(tokens=60_000, share=0.6, sft_tokens=None)
    plan = make_plan(data, 1024, 512, 600, seconds_per_token)
    assert epochs(plan, data) == pytest.approx(16, rel=0.02)
    assert plan.seconds < 3600


def test_few_chats_are_read_eight_times() -> None:
    data = Data(tokens=10**6, share=1.0, sft_tokens=20_000)
    plan = make_plan(data, 4096, 512, 600, seconds_per_token)
    assert plan.sft_tokens / 20_000 == pytest.approx(8, rel=0.02)


@pytest.mark.slow
def test_from_texts_to_a_model_in_an_empty_folder(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")
    write_chats(tmp_path / "chats.jsonl")
    environment = {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"}

    def keylm(*arguments: str, answer: str = "") -> str:
        command = [sys.executable, "-m", "keylm", *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, input=answer, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    keylm("new", "mine", "--text", "texts", "--chat", "chats.jsonl", "--minutes", "0.3")
    keylm("run", "mine.yaml")
    assert (tmp_path / "runs/mine/report.html").exists()
    assert keylm("chat", "runs/mine", "--temperature", "0", answer="Where is river 7?").strip()
