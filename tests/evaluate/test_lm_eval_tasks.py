import gzip
import hashlib
import json
import shutil
import socket
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_run import tiny_run as random_run
from typer.testing import CliRunner

from keylm import cli
from keylm import run as runs
from keylm.commands.evaluate import score_tasks
from keylm.common.errors import UserError
from keylm.common.files import read_json
from keylm.data.cleaning import benchmark_items
from keylm.data.cleaning.benchmark_items import ScoredItem, load_tasks, scored_items
from keylm.data.cleaning.decontamination import load_decontaminator
from keylm.evaluate.lm_eval_adapter import GeneratorLM
from keylm.evaluate.lm_eval_tasks import run_tasks
from keylm.model.transformer import KeyLM, load_model
from keylm.recipe import Recipe
from keylm.run import Run
from keylm.tokenizer.chat_template import render
from keylm.tokenizer.tokenizer import Tokenizer

CHOICES = {"hellaswag": 4, "piqa": 2, "arc_easy": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return random_run(tmp_path_factory.mktemp("eval") / "run")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write_rows(path: Path, rows: list[dict]) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def log_likelihood(model: KeyLM, tokenizer: Tokenizer, prompt: str, answer: str) -> float:
    whole, begin = tokenizer.encode(prompt + answer), len(tokenizer.encode(prompt))
    log_p = model.logits(torch.tensor([whole[:-1]])).log_softmax(-1)[0]
    return sum(log_p[index - 1, whole[index]].item() for index in range(begin, len(whole)))


def test_tasks_run_offline_from_a_folder(run: Run, shared: Path, no_network: None) -> None:
    scores = run_tasks(run, list(CHOICES), limit=4, data=shared / "eval")
    assert list(scores) == list(CHOICES)
    for name, row in scores.items():
        assert row["documents"] == 4
        assert set(row["scores"]) == set(row["standard_errors"]) == {"acc", "acc_norm"}
        assert all(score in {0, 0.25, 0.5, 0.75, 1} for score in row["scores"].values())
        assert row["baselines"]["acc"] == row["baselines"]["acc_norm"]
        assert row["baselines"]["acc"]["chance"] == pytest.approx(1 / CHOICES[name])
        assert set(row["baselines"]["acc"]) == {"chance", "longest choice", "shortest choice"}


def test_a_score_is_what_our_own_model_gives(run: Run, tmp_path: Path, no_network: None) -> None:
    rows = [
        {"goal": f"say {number}", "sol1": f"the quick {number} fox", "sol2": f"lazy dog {number}", "label": number % 2}
        for number in range(12)
    ]
    write_rows(tmp_path / "piqa.jsonl.gz", rows)
    scores = run_tasks(run, ["piqa"], data=tmp_path)["piqa"]
    model = load_model(run.recipe.model, run.weights("sft"))
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    chosen = []
    for row in rows:
        prompt, answers = f"Question: {row['goal']}\nAnswer:", (f" {row['sol1']}", f" {row['sol2']}")
        likelihoods = [log_likelihood(model, tokenizer, prompt, answer) for answer in answers]
        chosen.append(likelihoods.index(max(likelihoods)))
    assert scores["scores"]["acc"] == sum(pick == row["label"] for pick, row in zip(chosen, rows, strict=True)) / 12
    assert scores["baselines"]["acc"] == {"chance": 0.5, "longest choice": 0.5, "shortest choice": 0.5}


def test_choices_without_a_question_are_a_baseline(run: Run, tmp_path: Path, no_network: None) -> None:
    """With one question for all documents, the choice cannot depend on it: likelihoods of the choices alone decide."""
    rows = [{"goal": "g", "sol1": f"the {number} fox", "sol2": f"dog {number}", "label": 0} for number in range(6)]
    write_rows(tmp_path / "piqa.jsonl.gz", rows)
    scores = run_tasks(run, ["piqa"], data=tmp_path, baselines=True)["piqa"]
    model = load_model(run.recipe.model, run.weights("sft"))
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    hits = 0
    for row in rows:
        likelihoods = []
        for answer in (f" {row['sol1']}", f" {row['sol2']}"):
            ids = [tokenizer.end_of_text, *tokenizer.encode(answer)]
            log_p = model.logits(torch.tensor([ids[:-1]])).log_softmax(-1)[0]
            likelihoods.append(sum(log_p[index - 1, ids[index]].item() for index in range(1, len(ids))))
        hits += likelihoods[0] >= likelihoods[1]
    assert scores["baselines"]["acc"]["choices only"] == hits / len(rows)
    assert set(scores["not_significantly_above"]) == set(scores["scores"])


def test_ifeval_uses_the_chat_template_and_fits(
    run: Run, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    asked: list[tuple[str, dict]] = []
    answer = GeneratorLM.generate_until

    def listen(self, requests, **options):
        asked.extend(request.args for request in requests)
        return answer(self, requests, **options)

    monkeypatch.setattr(GeneratorLM, "generate_until", listen)
    prompts = {"Say it softly.": "change_case:english_lowercase", "No commas here.": "punctuation:no_comma"}
    rows = [
        {"key": key, "prompt": prompt, "instruction_id_list": [kind], "kwargs": [{}]}
        for key, (prompt, kind) in enumerate(prompts.items())
    ]
    write_rows(tmp_path / "ifeval.jsonl.gz", rows)
    shutil.copytree(shared / "eval" / "nltk_data", tmp_path / "nltk_data")
    scores = run_tasks(run, ["ifeval"], data=tmp_path)["ifeval"]
    assert scores["documents"] == 2
    assert (
        {"prompt_level_strict_acc", "inst_level_strict_acc"} <= set(scores["scores"]) == set(scores["standard_errors"])
    )
    baselines = {"constant sentence": 0.5, "echoed prompt": 0.5, "echo with filler": 0.5, "empty": 0.0}
    assert scores["baselines"]["prompt_level_strict_acc"] == scores["baselines"]["inst_level_loose_acc"] == baselines
    assert scores["answer_statistics"]["truncated"] == 1
    assert scores["answer_statistics"]["num_words"] > 0
    assert scores["answer_statistics"]["bits_per_byte"] > 0
    rendered = [render([{"role": "user", "content": prompt}], add_generation_prompt=True) for prompt in prompts]
    assert [prompt for prompt, _ in asked] == rendered
    assert all(options["max_gen_toks"] == run.recipe.model.max_position_embeddings // 2 for _, options in asked)


def test_the_table_shows_every_score(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"goal": "open it", "sol1": "pull", "sol2": "push hard", "label": 1}
    write_rows(tmp_path / "piqa.jsonl.gz", [row, row])
    score_tasks(run, ["piqa"], limit=1, data=tmp_path, json=tmp_path / "scores.json")
    written = read_json(tmp_path / "scores.json")
    shown = " ".join(capsys.readouterr().err.split())
    piqa = written["lm_eval"]["piqa"]
    assert "piqa (1 documents)" in shown
    assert f"acc {piqa['scores']['acc']:.2%} 100.0% longest choice" in shown
    assert piqa["baselines"]["acc"] == {"chance": 0.5, "longest choice": 1.0, "shortest choice": 0.0}
    assert f"PIQA 61.30% {piqa['scores']['acc']:.2%}" in shown
    files = {"model.safetensors": run.weights("sft"), "piqa.jsonl.gz": tmp_path / "piqa.jsonl.gz"}
    assert written["sha256"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert written["versions"]["lm_eval"] == version("lm_eval")
    assert (written["limit"], written["seed"], piqa["version"]) == (1, run.recipe.seed, 1.0)


def test_the_command_writes_json(run: Run, tmp_path: Path) -> None:
    write_rows(tmp_path / "piqa.jsonl.gz", [{"goal": "open it", "sol1": "pull", "sol2": "push hard", "label": 1}])
    options = ["--tasks", "piqa", "--data", str(tmp_path), "--json", str(tmp_path / "scores.json")]
    result = CliRunner().invoke(cli.app, ["eval", str(run.folder), *options])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["lm_eval"] == run_tasks(run, ["piqa"], data=tmp_path)
    assert written["model"] == str(run.folder)


def test_samples_keep_what_ifeval_judged(
    run: Run, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    """lm_eval's checkers on answers by hand, with verdicts by hand."""
    no_comma, ending = "punctuation:no_comma", "startend:end_checker"
    rows = [
        {
            "key": 0,
            "prompt": "Greet me without commas, and end with: Any questions?",
            "instruction_id_list": [ending, no_comma],
            "kwargs": [{"end_phrase": "Any questions?"}, {}],
        },
        {"key": 1, "prompt": "Greet me, no commas.", "instruction_id_list": [no_comma], "kwargs": [{}]},
    ]
    # The comma is in the first line, which loose judgement may leave out.
    answers = ["Sure, here it is:\nHello there. Any questions?", "Hello, hello."]
    monkeypatch.setattr(GeneratorLM, "generate_until", lambda *_, **__: answers)
    write_rows(tmp_path / "ifeval.jsonl.gz", rows)
    shutil.copytree(shared / "eval" / "nltk_data", tmp_path / "nltk_data")
    (tmp_path / "samples.jsonl").write_text("an older file")
    options = ["--data", str(tmp_path), "--samples", str(tmp_path / "samples.jsonl")]
    result = CliRunner().invoke(
        cli.app, ["eval", str(run.folder), "--tasks", "ifeval", *options, "--json", str(tmp_path / "scores.json")]
    )
    assert result.exit_code == 0, result.output
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [(sample["task"], sample["doc_id"], sample["doc"]) for sample in samples] == [
        ("ifeval", 0, rows[0]),
        ("ifeval", 1, rows[1]),
    ]
    assert [sample["arguments"][0][0] for sample in samples] == [
        render([{"role": "user", "content": row["prompt"]}], add_generation_prompt=True) for row in rows
    ]
    assert [sample["resps"] for sample in samples] == [[[answer]] for answer in answers]
    assert [sample["inst_level_strict_acc"] for sample in samples] == [[True, False], [False]]
    assert [sample["inst_level_loose_acc"] for sample in samples] == [[True, True], [False]]
    scores = read_json(tmp_path / "scores.json")["lm_eval"]["ifeval"]
    # Both prompts have commas, and one happens to end as it asks the answer to end.
    nothing = dict.fromkeys(scores["baselines"]["inst_level_strict_acc"], 0)
    assert list(scores["by_instruction"].items()) == [
        (no_comma, {"followed": 0, "total": 2, "baselines": {**nothing, "constant sentence": 2}}),
        (ending, {"followed": 1, "total": 1, "baselines": {**nothing, "echoed prompt": 1}}),
    ]
    assert scores["baselines"]["inst_level_strict_acc"]["echoed prompt"] == pytest.approx(1 / 3)
    assert scores["answer_statistics"]["num_words"] == 5


def test_samples_keep_likelihoods_of_choices(run: Run, tmp_path: Path, no_network: None) -> None:
    write_rows(tmp_path / "piqa.jsonl.gz", [{"goal": "open it", "sol1": "pull", "sol2": "push hard", "label": 1}])
    score_tasks(run, ["piqa"], data=tmp_path, samples=tmp_path / "samples.jsonl")
    [sample] = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    prompt, choices = "Question: open it\nAnswer:", [" pull", " push hard"]
    assert sample["arguments"] == [[prompt, choice] for choice in choices]
    model = load_model(run.recipe.model, run.weights("sft"))
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    expected = [log_likelihood(model, tokenizer, prompt, choice) for choice in choices]
    likelihoods = [likelihood for likelihood, _ in sample["filtered_resps"]]
    assert likelihoods == pytest.approx(expected, abs=1e-3)
    assert sample["target"] == 1
    assert sample["acc"] == (expected[1] > expected[0])


@pytest.mark.parametrize("option", ["json", "samples"])
def test_files_need_tasks(run: Run, tmp_path: Path, option: str) -> None:
    result = CliRunner().invoke(cli.app, ["eval", str(run.folder), f"--{option}", str(tmp_path / "scores.json")])
    assert isinstance(result.exception, UserError)
    assert f"--{option} needs --tasks" in str(result.exception)


@pytest.mark.parametrize("option", ["json", "samples"])
def test_a_missing_folder_is_named_before_anything_is_scored(run: Run, tmp_path: Path, option: str) -> None:
    file = tmp_path / "missing" / "scores.json"
    with pytest.raises(UserError, match=f"{file} cannot be written: create the folder {file.parent} first"):
        score_tasks(run, ["no_such_task"], **{option: file})


@pytest.mark.parametrize(
    ("names", "files", "sentence"),
    [
        (["piqa"], [], "task `piqa` needs its data, and .* has no piqa.jsonl.gz"),
        (["no_such_task"], ["no_such_task"], "lm_eval has no task `no_such_task`"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, names: list[str], files: list[str], sentence: str) -> None:
    for name in files:
        write_rows(tmp_path / f"{name}.jsonl.gz", [{}])
    with pytest.raises(UserError, match=sentence):
        load_tasks(names, tmp_path)


def test_an_answer_longer_than_the_context_is_named(run: Run, tmp_path: Path) -> None:
    row = {"goal": "open it", "sol1": "pull", "sol2": "Ж" * run.recipe.model.max_position_embeddings, "label": 1}
    write_rows(tmp_path / "piqa.jsonl.gz", [row])
    with pytest.raises(UserError, match="`piqa` has an answer of more than the 256 tokens"):
        run_tasks(run, ["piqa"], data=tmp_path)


def test_missing_punkt_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    write_rows(tmp_path / "ifeval.jsonl.gz", [{}])
    with pytest.raises(UserError, match=r"needs nltk's punkt_tab, and .* has no nltk_data/tokenizers/punkt_tab"):
        load_tasks(["ifeval"], tmp_path)


def test_offline_without_a_folder_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"task `piqa` needs its data, and the hub could not be reached.*--data"):
        load_tasks(["piqa"])


def test_missing_data_are_named_before_weights(run: Run, tmp_path: Path) -> None:
    untrained = Run(tmp_path / "untrained", run.recipe)
    with pytest.raises(UserError, match="has no piqa"):
        run_tasks(untrained, ["piqa"], data=tmp_path)
    write_rows(tmp_path / "piqa.jsonl.gz", [{"goal": "g", "sol1": "a", "sol2": "b", "label": 0}])
    with pytest.raises(UserError, match="untrained has no trained weights"):
        run_tasks(untrained, ["piqa"], data=tmp_path)


def test_scored_items_are_dropped_from_the_text(tmp_path: Path, no_network: None) -> None:
    goal = "the best way to keep a very old boat from filling with cold water in winter"
    answers = ["turn it over on dry land", "leave it in the harbour with a heavy stone in it"]
    write_rows(tmp_path / "piqa.jsonl.gz", [{"goal": goal, "sol1": answers[0], "sol2": answers[1], "label": 0}])
    items = list(scored_items(["piqa"], tmp_path))
    assert items == [ScoredItem("piqa", [f"Question: {goal}\nAnswer:"], answers)]
    values = {
        "name": "clean",
        "data": {"clean": {"decontaminate": ["piqa"]}},
        "eval": {"data": str(tmp_path)},
    }
    clean_run = runs.create(Recipe.model_validate(values), tmp_path / "run")
    index = load_decontaminator(clean_run)
    assert index is not None
    assert index.contaminating_task(f"He wrote: {goal.upper()}, and no more.") == "piqa"
    other = f"He knew {answers[0]}, that is the best way to keep a very old boat from filling."
    assert index.contaminating_task(other) is None
    assert load_decontaminator(clean_run) is index


def test_contexts_and_continuations_by_task_type() -> None:
    def task(output_type: str, text: object, target: object, choices: object = None, multiple_input: bool = False):
        return SimpleNamespace(
            OUTPUT_TYPE=output_type,
            multiple_input=multiple_input,
            doc_to_text=lambda _: text,
            doc_to_target=lambda _: target,
            doc_to_choice=lambda _: choices,
        )

    assert benchmark_items._item_texts(task("generate_until", "Add.", 0), {}) == (["Add."], [])
    assert benchmark_items._item_texts(task("generate_until", "Add.", ["1", "one"]), {}) == (["Add."], ["1", "one"])
    assert benchmark_items._item_texts(task("multiple_choice", "Add.", 1, ["a", "b"]), {}) == (["Add."], ["a", "b"])
    filled_in = task("multiple_choice", 1, "is here.", ["Ann", "Bob"], multiple_input=True)
    assert benchmark_items._item_texts(filled_in, {}) == (["Ann", "Bob"], ["is here."])
