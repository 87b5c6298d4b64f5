"""`report.html`: a run on one page, in one file that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from keylm.common.files import write_text
from keylm.evaluate import plots, reference_scores
from keylm.evaluate.results import build_results, dropped_counts, measured_results, tuned_results
from keylm.evaluate.significance import remark, standard_error, within_noise
from keylm.run import Run
from keylm.train import metrics

TRAININGS = {
    "pretrain": "Pretraining",
    "sft": "Instruction tuning",
    "dpo": "Preference tuning",
    "grpo": "Reinforcement",
}
MIXED = ("pretrain", "sft")
"""Those that read a mixture of sources."""
SCORED = {"pretrain": "before SFT", "sft": "after SFT", "dpo": "after DPO", "grpo": "after GRPO"}
"""What a score is called, by the stage whose weights it is of."""


def write_report(run: Run) -> None:
    """Write `report.html` into the run's folder; what the run has not done yet is left out."""
    found = build_results(run)
    instructions = measured_results(run, "instructions")
    page = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            results=found,
            cards=list(_cards(found)),
            curves={
                title: _curves(metrics.read_metrics(run.stage(stage) / "metrics.jsonl"))
                for stage, title in TRAININGS.items()
            },
            mixtures={TRAININGS[stage]: run.metadata(stage)["mixture"] for stage in MIXED if _is_own(run, stage)},
            coders=_coders(found["bits_per_byte"]),
            dropped=_dropped_tables(dropped_counts(run)),
            bits_plot=_bits_plot(found["bits_per_byte"]),
            answer_stages=SCORED,
            typos={SCORED[stage]: found["typos"][stage] for stage in SCORED if stage in found["typos"]},
            typo_plots=_typo_plots(found["typos"]),
            scores={SCORED.get(name, name): row for name, row in _score_columns(found["instructions"]).items()},
            splits=_splits(found["instructions"]),
            published=reference_scores.NAME,
            beside_published=reference_scores.beside(found["tasks"]),
            samples={SCORED[stage]: row["samples"] for stage, row in reversed(instructions.items())},
            recipe=(run.folder / "recipe.yaml").read_text(encoding="utf-8"),
        )
    )
    write_text(run.folder / "report.html", page)


def _is_own(run: Run, stage: str) -> bool:
    """Whether a stage was done here, not imported."""
    return run.is_done(stage) and not run.imported_from(stage)


def _cards(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The headline: numbers, and what each is."""
    yield short(found["parameters"]), "parameters"
    trained = {stage: sum(tokens.values()) for stage, tokens in found["tokens"]["trained"].items()}
    if trained and found["imported"]:
        yield short(trained["sft"]), "tokens of SFT, on imported weights"
    elif trained:
        yield short(trained["pretrain"]), f"tokens of pretraining, {short(trained.get('sft', 0))} of SFT"
    for name, row in list(found["bits_per_byte"].items())[:1]:
        yield f"{row['pretrain']:.3f}", f"bits per byte of held-out {name}; xz -9e: {row['xz']:.3f}"
    scores = _score_columns(found["instructions"])
    tuned = tuned_results(scores)
    if tuned:
        best_null = max(found["instructions"]["null_answers"].values(), key=lambda row: float(row["followed"]))
        yield (
            percent(scores[tuned]["followed"], 0),
            f"of held-out instructions followed; before SFT {percent(scores['pretrain']['followed'], 0)}, "
            f"best null answer {percent(best_null['followed'], 0)}{_doubt(scores[tuned], best_null)}",
        )
        yield percent(scores[tuned]["on_topic"], 0), "of answers name the topic asked about"
    if found["stages"]:
        peak = max(stage["peak_memory_bytes"] for stage in found["stages"].values())
        yield duration(sum(stage["seconds"] for stage in found["stages"].values())), f"in all; peak memory {gib(peak)}"


def _doubt(scores: dict[str, Any], best_null: dict[str, Any]) -> str:
    """What has to be said of a score that is not clearly above the best null answer's."""
    error = standard_error(scores["followed"], scores["instructions"])
    near = within_noise(scores["followed"], error, {"it": best_null["followed"]})
    return f": {remark(near)}" if near else ""


def _curves(rows: list[dict[str, Any]]) -> list[Markup]:
    """Loss, learning rate, and bits per byte on held-out text where it was measured, over tokens."""
    steps = [row for row in rows if "loss" in row]
    checks = [row for row in rows if "validation" in row]
    drawn = []
    if steps:
        drawn.append(plots.curves("loss (nats per token)", {"loss": [(row["tokens"], row["loss"]) for row in steps]}))
        rates = [(row["tokens"], row["learning_rate"]) for row in steps]
        drawn.append(plots.curves("learning rate", {"learning rate": rates}))
    if checks:
        drawn.append(_validation_curves(checks))
    return drawn


def _validation_curves(checks: list[dict[str, Any]]) -> Markup:
    """A line for each source, or one for their mean where so many could not be told apart."""
    names = list(checks[0]["validation"])
    if len(names) > len(plots.COLOURS):
        means = [(row["tokens"], fmean(row["validation"].values())) for row in checks]
        return plots.curves(f"bits per byte, mean of {len(names)} sources", {"mean": means}, marker="o")
    series = {name: [(row["tokens"], row["validation"][name]) for row in checks] for name in names}
    return plots.curves("bits per byte, held-out text", series, marker="o")


def _coders(found: dict[str, Any]) -> dict[str, str]:
    """The weights that coded text, and xz: titles by key."""
    titles = {**SCORED, "xz": "xz -9e"}
    return {coder: title for coder, title in titles.items() if any(coder in row for row in found.values())}


def _bits_plot(found: dict[str, Any]) -> Markup | None:
    coders = _coders(found)
    groups = {
        name: {title: row[coder] for coder, title in coders.items() if coder in row} for name, row in found.items()
    }
    return plots.bars("bits per byte: lower is better", groups) if groups else None


def _typo_plots(found: dict[str, Any]) -> list[Markup]:
    """What typos cost, over the share of characters mistyped."""
    drawn = []
    for key, title in (("rise", "rise in bits per byte"), ("followed", "instructions followed")):
        series = {
            SCORED[stage]: [(float(rate.rstrip("%")), row[key]) for rate, row in found[stage].items() if key in row]
            for stage in SCORED
            if stage in found
        }
        if any(series.values()):
            drawn.append(plots.curves(title, series, marker="o", over="% of characters mistyped"))
    return drawn


def _dropped_tables(found: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """A table for pretraining and one for SFT: the reasons, counts by source, and samples by source and reason."""
    tables = {}
    for part, sources in found.items():
        reasons = sorted({reason for row in sources.values() for reason in row["counts"]})
        samples = {
            f"{name}: {reason}": texts
            for name, row in sources.items()
            for reason, texts in row["samples"].items()
            if texts
        }
        counts = {name: row["counts"] for name, row in sources.items()}
        if reasons:
            tables[TRAININGS[part]] = {"reasons": reasons, "counts": counts, "samples": samples}
    return tables


def _score_columns(instructions: dict[str, Any]) -> dict[str, Any]:
    """One column of scores for each set of answers: the models', then the null answers."""
    return {**{name: row for name, row in instructions.items() if name in SCORED}, **instructions["null_answers"]}


def _splits(instructions: dict[str, Any]) -> dict[str, Any]:
    """The last weights' scores, split by split."""
    last = [instructions[stage]["splits"] for stage in SCORED if stage in instructions]
    return last[-1] if last else {}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("keylm.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "gib": gib, "remark": remark}
    return environment


def percent(share: float, digits: int = 1) -> str:
    """`0.4316` as `43.2%`."""
    return f"{share:.{digits}%}"


def duration(seconds: float) -> str:
    """Seconds as `2 h 05 min`, `3 min 20 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def gib(num_bytes: int) -> str:
    """Bytes in binary gigabytes."""
    return f"{num_bytes / 2**30:.2f} GiB"


def short(number: int) -> str:
    """A count in three digits: `75.3M`."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
