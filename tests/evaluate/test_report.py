import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.made_up_run import ATTACK, made_up_run, write_metrics

from keylm.common.files import read_json, write_json
from keylm.evaluate import plots
from keylm.evaluate.report import write_report
from keylm.evaluate.results import collect_results
from keylm.run import Run, create

LOADS = {"src", "srcset", "href", "xlink:href", "data", "action", "poster", "background"}
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements, attributes and words of a page; complains about a tag that closes nothing."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data + " "


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = made_up_run(tmp_path_factory.mktemp("report"))
    write_report(run, collect_results(run))
    return run


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    return (run.folder / "report.html").read_text()


def test_the_page_loads_nothing(text: str) -> None:
    page = Page(text)
    assert page.open == []
    loaded = [value for name, value in page.attributes if name in LOADS]
    assert all(value and value.startswith("#") for value in loaded)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert not re.search(r"@import|url\((?!#)", text)


def test_model_output_is_escaped(text: str) -> None:
    assert ATTACK not in text
    assert ATTACK in Page(text).words


def test_the_page_states_the_results(text: str) -> None:
    words = " ".join(Page(text).words.split())
    for fact in (
        "Made-up 6M",
        "6.52M parameters",
        "1.931 bits per byte of held-out prose; xz -9e: 2.171",
        "75% of held-out instructions followed; before SFT 10%, best baseline 43%",
        "60.00% 59.91% 2,208,522",
        "gated (pretrain) was unavailable, and its weight went to the other sources of its category: its terms",
        "source reason documents prose contaminated: piqa 3 prose too short 12,345 talk duplicate 7",
        "at temperature 0.7 and repetition penalty 1.1, not cherry-picked",
        "user When is the market? assistant On Sunday. held-out answer Every Friday, from eight to noon. talk",
        "prose: too short",
        "echoed prompt",
        "talk 200 1.812 1.493",
        "checked 150 1.710 1.790 4.7%",
        "piqa 1,838 3 acc 54.13%",
        "hellaswag 1,838 not checked acc 26.91%",
        "PIQA 61.30% 54.13% 1.16% below",
        "HellaSwag 31.00% 27.91% 1.16% below",
        "Answers to piqa: prompt copy 0.310",
        "new topics and phrasings 53 75.0% 3.0% constant sentence 14.0% · echoed prompt 43.0% · empty 0.0%",
        "new kinds 53 37.5% 3.0% not significantly above echoed prompt constant sentence 14.0%",
        "new kinds 26.2% 87.5% 6.2% 3.1% 20.0% 15.0% 17.5 1.234",
        "10% 1.900 0.100 ± 0.004 0.0% 2.000 0.100 ± 0.004 60.0%",
        "7 min 56 s",
        "vocab_size: 4096",
    ):
        assert fact in words, fact


def test_an_insignificant_headline_says_so(run: Run, tmp_path: Path) -> None:
    path = run.stage("eval") / "instruction_following.json"
    scores = read_json(path)
    weak = {**scores, "sft": {**scores["sft"], "instruction_accuracy": 0.44}}
    write_json(path, weak)
    try:
        write_report(run, collect_results(run))
        words = " ".join(Page((run.folder / "report.html").read_text(encoding="utf-8")).words.split())
    finally:
        write_json(path, scores)
    assert "best baseline 43%: not significantly above it" in words


def test_dpo_adds_a_column_and_is_the_headline(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, dpo={})
    write_metrics(run, "dpo")
    path = run.stage("eval") / "instruction_following.json"
    scores = read_json(path)
    write_json(path, {**scores, "dpo": {**scores["sft"], "instruction_accuracy": 0.81}})
    write_report(run, collect_results(run))
    words = " ".join(Page((run.folder / "report.html").read_text(encoding="utf-8")).words.split())
    assert "81% of held-out instructions followed; before SFT 10%" in words
    assert "score count before SFT after SFT after DPO constant sentence" in words
    assert "DPO on verified preference pairs" in words


def test_plots_are_whole_and_use_the_page_s_color(text: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 5 + 5 + 1 + 2
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert "currentColor" in drawing
        assert "#000000" not in drawing
        assert "metadata" not in drawing


def test_a_run_that_has_just_begun_has_a_report(run: Run, tmp_path: Path) -> None:
    new = create(run.recipe, tmp_path)
    new.begin("pretrain")
    write_metrics(new, "pretrain", num_steps=8)
    write_report(new, collect_results(new))
    page = Page((tmp_path / "report.html").read_text())
    assert page.tags.count("svg") == 5
    sections = (
        "Dropped documents",
        "Mixture",
        "Instruction following",
        "Typo robustness",
        "Held-out prompts",
        "Sample conversations",
        "Time and memory",
        "Benchmarks",
    )
    for absent in sections:
        assert absent not in page.words


def test_the_contents_list_has_every_section_and_no_other(text: str) -> None:
    contents = text[text.index("<nav>") : text.index("</nav>")]
    linked = dict(re.findall(r'<a href="#(section-\d+)">(.*?)</a>', contents))
    assert linked == dict(re.findall(r'<h2 id="(section-\d+)">(.*?)</h2>', text))
    assert list(linked.values())[:2] == ["Held-out prompts", "Pretrain on the mixture of text"]


def test_phases_are_marked(run: Run, tmp_path: Path) -> None:
    phases = {"train": {"tokens": 3_686_400, "phases": [{"until": 0.25}, {"until": 1.0}]}}
    new = made_up_run(tmp_path, **phases)
    write_report(new, collect_results(new))
    assert "where a phase of the mixture ends" in (tmp_path / "report.html").read_text()
    assert "where a phase" not in (run.folder / "report.html").read_text()


def test_the_page_says_when_and_by_which_command_it_was_written(text: str) -> None:
    words = " ".join(Page(text).words.split())
    assert re.search(r"Made-up 6M 20\d\d-\d\d-\d\d \d\d:\d\d UTC · .* cores · keylm [^ ]+ .*· keylm ", words)


def test_what_was_not_taught_is_not_graded(tmp_path: Path) -> None:
    run = made_up_run(tmp_path)
    write_json(run.stage("eval") / "instruction_following.json", {})
    write_report(run, collect_results(run))
    words = " ".join(Page((tmp_path / "report.html").read_text()).words.split())
    assert "Instruction following" not in words
    assert "1.493 bits per byte of held-out answers of talk; before SFT 1.812" in words


def test_a_run_evaluated_by_an_earlier_version_opens_with_its_curves(tmp_path: Path) -> None:
    run = made_up_run(tmp_path)
    (run.stage("eval") / "held_out_samples.json").unlink()
    write_report(run, collect_results(run))
    assert "Held-out prompts" not in (tmp_path / "report.html").read_text()


def test_many_sources_are_drawn_as_their_mean(run: Run, tmp_path: Path) -> None:
    new = create(run.recipe, tmp_path)
    scores = {f"source-{number}": float(number) for number in range(9)}
    row = {"step": 1, "tokens": 4096, "validation": scores}
    (new.begin("pretrain") / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    write_report(new, collect_results(new))
    words = Page((tmp_path / "report.html").read_text()).words
    assert "mean of 9 sources" in words
    assert "source-8" not in words


def test_thinning_keeps_the_means() -> None:
    points = [(float(step), float(step % 7)) for step in range(1000)]
    few = plots.thinned(points, 100)
    assert len(few) == 100
    assert sum(x for x, _ in few) / 100 == pytest.approx(sum(x for x, _ in points) / 1000)
    assert sum(y for _, y in few) / 100 == pytest.approx(sum(y for _, y in points) / 1000)
    assert plots.thinned(points[:100], 100) == points[:100]
