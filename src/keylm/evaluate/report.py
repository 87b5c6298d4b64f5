"""`report.html`: a run on one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from keylm.common.files import write_text
from keylm.common.units import duration, gib, percent, short
from keylm.evaluate import plots
from keylm.evaluate.reference_scores import compare_with_reference, reference_model
from keylm.evaluate.results import dropped_documents, last_finetuned_stage, load_measurement
from keylm.evaluate.significance import not_significantly_above, significance_note
from keylm.run import Run
from keylm.stages import STAGES, TRAINING_STAGES
from keylm.train import metrics

TITLES = {stage.name: stage.title[0].upper() + stage.title[1:] for stage in STAGES}
LABELS = {stage.name: stage.label for stage in TRAINING_STAGES}
"""What the scores of a stage's weights are called, such as `after SFT`."""


def write_report(run: Run, results: dict[str, Any], folder: Path | None = None) -> None:
    """Write `report.html`; what the run has not done yet is left out.

    Args:
        run: The run.
        results: Its `collect_results`.
        folder: Where to write it; the run's folder by default.
    """
    instructions = results["instruction_following"]
    typos = results["typo_robustness"]
    measured = [stage for stage in LABELS if stage in instructions]
    # An imported stage is done too, but nothing is known of its mixture: an empty table would look like a fault.
    done = [name for name in LABELS if run.is_finished(name) and not run.imported_from(name)]
    trained = {stage: run.metadata(stage) for stage in done}
    # The latest weights first: their conversations are the ones that are shown unfolded.
    conversations = {
        LABELS[stage]: row["samples"] for stage, row in reversed(load_measurement(run, "instruction_following").items())
    }
    # Autoescape, because the page shows what models write; strict, so that a renamed key fails instead of vanishing.
    environment = Environment(
        loader=PackageLoader("keylm.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "duration": duration,
        "gib": gib,
        "significance_note": significance_note,
    }
    page = environment.get_template("report.html.jinja").render(
        results=results,
        headlines=list(_headlines(results)),
        training_plots={
            TITLES[stage.name]: _training_plots(metrics.read_metrics(run.stage(stage.name) / "metrics.jsonl"))
            for stage in TRAINING_STAGES
        },
        mixtures={TITLES[stage]: values["mixture"] for stage, values in trained.items() if "mixture" in values},
        dropped=_dropped_tables(run),
        coders=_measured_columns(results["bits_per_byte"]),
        bits_per_byte_plot=_bits_per_byte_plot(results["bits_per_byte"]),
        score_columns={**{LABELS[stage]: instructions[stage] for stage in measured}, **instructions["baselines"]},
        splits=instructions[measured[-1]]["splits"] if measured else {},
        answer_columns=_measured_columns(results["sft_answers"].get("bits_per_byte", {})),
        typos={LABELS[stage]: typos[stage] for stage in LABELS if stage in typos},
        typo_plots=_typo_plots(typos),
        reference=reference_model(),
        comparisons=compare_with_reference(results["lm_eval"]),
        conversations=conversations,
        recipe=(run.folder / "recipe.yaml").read_text(encoding="utf-8"),
    )
    write_text((folder or run.folder) / "report.html", page)


def _headlines(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The numbers at the top of the page, and what each is."""
    yield short(results["parameters"]), "parameters"

    tokens = {stage: sum(sources.values()) for stage, sources in results["tokens"]["trained"].items()}
    if tokens and results["imported"]:
        yield short(tokens["sft"]), "tokens of SFT, on imported weights"
    elif tokens:
        yield short(tokens["pretrain"]), f"tokens of pretraining, {short(tokens.get('sft', 0))} of SFT"

    for name, row in list(results["bits_per_byte"].items())[:1]:
        yield f"{row['pretrain']:.3f}", f"bits per byte of held-out {name}; xz -9e: {row['xz']:.3f}"

    instructions = results["instruction_following"]
    stage = last_finetuned_stage(instructions)
    if stage:
        accuracy, error = (instructions[stage][key] for key in ("instruction_accuracy", "standard_error"))
        best = max(float(row["instruction_accuracy"]) for row in instructions["baselines"].values())
        note = significance_note(not_significantly_above(accuracy, error, {"it": best}))
        yield (
            percent(accuracy, 0),
            f"of held-out instructions followed; {LABELS['pretrain']} "
            f"{percent(instructions['pretrain']['instruction_accuracy'], 0)}, "
            f"best baseline {percent(best, 0)}{note and f': {note}'}",
        )
        yield percent(instructions[stage]["topic_mentioned"], 0), "of answers mention the topic of the request"

    if results["stages"]:
        peak = max(stage["peak_memory_bytes"] for stage in results["stages"].values())
        seconds = sum(stage["seconds"] for stage in results["stages"].values())
        yield duration(seconds), f"for all stages; peak memory {gib(peak)}"


def _training_plots(rows: list[dict[str, Any]]) -> list[Markup]:
    """Loss, learning rate, and validation bits per byte if it was measured, over tokens."""
    steps = [row for row in rows if "loss" in row]
    validations = [row for row in rows if "validation" in row]
    drawn = []
    if steps:
        losses = [(row["tokens"], row["loss"]) for row in steps]
        rates = [(row["tokens"], row["learning_rate"]) for row in steps]
        drawn.append(plots.curves("loss (nats per token)", {"loss": losses}))
        drawn.append(plots.curves("learning rate", {"learning rate": rates}))
    if not validations:
        return drawn
    sources = list(validations[0]["validation"])
    if len(sources) > len(plots.COLORS):
        # Lines in repeated colors could not be told apart.
        means = [(row["tokens"], fmean(row["validation"].values())) for row in validations]
        title = f"validation bits per byte, mean of {len(sources)} sources"
        return [*drawn, plots.curves(title, {"mean": means}, marker="o")]
    series = {name: [(row["tokens"], row["validation"][name]) for row in validations] for name in sources}
    return [*drawn, plots.curves("validation bits per byte", series, marker="o")]


def _dropped_tables(run: Run) -> dict[str, Any]:
    """By stage: the reasons, the counts by source, and samples by source and reason."""
    tables = {}
    for stage, sources in dropped_documents(run).items():
        reasons = sorted({reason for row in sources.values() for reason in row["counts"]})
        if not reasons:
            continue
        tables[TITLES[stage]] = {
            "reasons": reasons,
            "counts": {name: row["counts"] for name, row in sources.items()},
            "samples": {
                f"{name}: {reason}": texts
                for name, row in sources.items()
                for reason, texts in row["samples"].items()
                if texts
            },
        }
    return tables


def _measured_columns(rows: dict[str, Any]) -> dict[str, str]:
    """By their keys in the rows, the labels of the weights that were measured, and of xz."""
    labels = {**LABELS, "xz": "xz -9e"}
    return {key: label for key, label in labels.items() if any(key in row for row in rows.values())}


def _bits_per_byte_plot(bits_per_byte: dict[str, Any]) -> Markup | None:
    coders = _measured_columns(bits_per_byte)
    groups = {
        name: {label: row[key] for key, label in coders.items() if key in row} for name, row in bits_per_byte.items()
    }
    return plots.bars("bits per byte (lower is better)", groups) if groups else None


def _typo_plots(typos: dict[str, Any]) -> list[Markup]:
    """What typos cost, over the share of characters with a typo."""
    drawn = []
    for key, title in (("increase", "increase in bits per byte"), ("instruction_accuracy", "instruction accuracy")):
        series = {
            label: [(float(rate.rstrip("%")), row[key]) for rate, row in typos[stage].items() if key in row]
            for stage, label in LABELS.items()
            if stage in typos
        }
        if any(series.values()):
            drawn.append(plots.curves(title, series, marker="o", x_label="% of characters with a typo"))
    return drawn
