"""`report.html`: a run on one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from keylm.common.files import read_json
from keylm.common.units import duration, gib, percent, short
from keylm.evaluate import plots
from keylm.evaluate import report_tables as tables
from keylm.evaluate.pages import Table, write_page
from keylm.evaluate.provenance import origin
from keylm.evaluate.reference_scores import compare_with_reference, reference_model
from keylm.evaluate.report_tables import LABELS, TITLES
from keylm.evaluate.results import dropped_documents, last_finetuned_stage, load_measurement
from keylm.evaluate.significance import not_significantly_above, significance_note
from keylm.recipe import MIXTURE_STAGES
from keylm.run import Run
from keylm.stages import TRAINING_STAGES
from keylm.train.metrics import read_metrics


def write_report(run: Run, results: dict[str, Any], folder: Path | None = None) -> None:
    """Write `report.html`; what the run has not done yet, or was not taught, is left out.

    Args:
        run: The run.
        results: Its `collect_results`.
        folder: Where to write it; the run's folder by default.
    """
    typos = {LABELS[stage]: rows for stage, rows in results["typo_robustness"].items() if stage in LABELS}
    # An imported stage is done too, but nothing is known of its mixture: an empty table would look like a fault.
    done = [name for name in LABELS if run.is_finished(name) and not run.imported_from(name)]
    trained = {stage: run.metadata(stage) for stage in done}
    dropped = {stage: sources for stage, sources in dropped_documents(run).items() if _any_counts(sources)}
    answers = results["sft_answers"]
    phase_ends = {stage.name: _phase_ends(run, stage.name) for stage in TRAINING_STAGES}
    write_page(
        "report.html.jinja",
        (folder or run.folder) / "report.html",
        results=results,
        origin=origin(),
        headlines=list(_headlines(results)),
        held_out=_held_out_samples(run),
        training_plots={
            TITLES[stage]: _training_plots(read_metrics(run.stage(stage) / "metrics.jsonl"), ends)
            for stage, ends in phase_ends.items()
        },
        phase_ends={TITLES[stage]: ends for stage, ends in phase_ends.items()},
        bits_per_byte_plot=_bits_per_byte_plot(results["bits_per_byte"]),
        bits_per_byte=tables.bits_per_byte_table(results["bits_per_byte"]),
        answers=tables.answers_table(answers.get("bits_per_byte", {})),
        constrained_answers=tables.constrained_answers_table(answers.get("constrained", {})),
        instructions=_instruction_tables(results["instruction_following"]),
        # The latest weights first.
        conversations={
            LABELS[stage]: row["samples"]
            for stage, row in reversed(load_measurement(run, "instruction_following").items())
        },
        tasks=tables.task_table(results["lm_eval"]),
        reference=reference_model(),
        comparisons=tables.reference_table(reference_model(), compare_with_reference(results["lm_eval"])),
        typos=tables.typo_table(typos) if typos else None,
        typo_plots=_typo_plots(typos),
        mixtures={
            TITLES[stage]: tables.mixture_table(values["mixture"])
            for stage, values in trained.items()
            if "mixture" in values
        },
        dropped={TITLES[stage]: tables.dropped_table(sources) for stage, sources in dropped.items()},
        dropped_samples={
            f"{name}: {reason}": texts
            for sources in dropped.values()
            for name, row in sources.items()
            for reason, texts in row["samples"].items()
            if texts
        },
        costs=tables.cost_table(results["stages"]),
        versions=tables.version_table(results["versions"]),
        recipe=(run.folder / "recipe.yaml").read_text(encoding="utf-8"),
    )


def _headlines(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The numbers at the top of the page, and what each is."""
    yield short(results["parameters"]), "parameters"

    tokens = {stage: sum(sources.values()) for stage, sources in results["tokens"]["trained"].items()}
    if tokens and results["imported"]:
        yield short(sum(tokens.values())), "tokens of training, on imported weights"
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
    else:
        yield from _answer_headlines(results["sft_answers"].get("bits_per_byte", {}))

    if results["stages"]:
        peak = max(stage["peak_memory_bytes"] for stage in results["stages"].values())
        seconds = sum(stage["seconds"] for stage in results["stages"].values())
        yield duration(seconds), f"for all stages; peak memory {gib(peak)}"


def _answer_headlines(rows: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Of a model whose instruction following says nothing: how well it predicts the held-out answers of its data."""
    for name, row in list(rows.items())[:1]:
        *_, last = (stage for stage in LABELS if stage in row)
        yield (
            f"{row[last]:.3f}",
            f"bits per byte of held-out answers of {name}; {LABELS['pretrain']} {row['pretrain']:.3f}",
        )


def _held_out_samples(run: Run) -> dict[str, Any]:
    """What the released weights made of held-out prompts; empty in a run that an earlier version evaluated."""
    path = run.stage("eval") / "held_out_samples.json"
    samples = read_json(path) if path.exists() else {}
    return samples if samples.get("samples") else {}


def _phase_ends(run: Run, stage: str) -> list[float]:
    """Tokens after which a phase of the mixture ends, the last one left out."""
    if stage not in MIXTURE_STAGES:
        return []
    config = run.recipe.training(stage)
    return [phase.until * config.num_steps * config.batch_tokens for phase in config.phases[:-1]]


def _training_plots(rows: list[dict[str, Any]], phase_ends: Sequence[float]) -> list[Markup]:
    """Loss, held-out bits per byte, learning rate, gradient norm and speed, as far as they were logged, over tokens."""

    def over_tokens(*keys: str) -> Iterator[Markup]:
        for key in keys:
            if points := [(row["tokens"], row[key]) for row in rows if key in row]:
                yield plots.curves(plots.STEP_CURVES[key], {key: points}, phase_ends=phase_ends)

    return [
        *over_tokens("loss"),
        *_validation_plots(rows, "validation", "bits per byte of held-out text", phase_ends),
        *_validation_plots(rows, "answers", "bits per byte of held-out answers", phase_ends),
        *over_tokens("learning_rate", "grad_norm", "tokens_per_second"),
    ]


def _validation_plots(
    rows: list[dict[str, Any]], key: str, title: str, phase_ends: Sequence[float]
) -> Iterator[Markup]:
    """Scores by source over tokens, if there are any."""
    if validations := [row for row in rows if key in row]:
        title, series = plots.scores_by_source(validations, key, title)
        yield plots.curves(title, series, marker="o", phase_ends=phase_ends)


def _any_counts(sources: dict[str, dict[str, Any]]) -> bool:
    return any(row["counts"] for row in sources.values())


def _instruction_tables(instructions: dict[str, Any]) -> dict[str, Table]:
    """The tables of instruction following; none if it was not measured."""
    measured = [stage for stage in LABELS if stage in instructions]
    if not measured:
        return {}
    columns = {**{LABELS[stage]: instructions[stage] for stage in measured}, **instructions["baselines"]}
    splits = instructions[measured[-1]]["splits"]
    return {
        "scores": tables.instruction_table(columns),
        "constraints": tables.constraint_table(columns),
        "splits": tables.split_table(splits),
        "statistics": tables.answer_statistics_table(splits),
    }


def _bits_per_byte_plot(bits_per_byte: dict[str, Any]) -> Markup | None:
    coders = tables.measured_columns(bits_per_byte)
    groups = {
        name: {label: row[key] for key, label in coders.items() if key in row} for name, row in bits_per_byte.items()
    }
    return plots.bars("bits per byte (lower is better)", groups) if groups else None


def _typo_plots(typos: dict[str, Any]) -> list[Markup]:
    """What typos cost, over the share of characters with a typo; `typos` has the rows of each label."""
    drawn = []
    for key, title in (("increase", "increase in bits per byte"), ("instruction_accuracy", "instruction accuracy")):
        series = {
            label: [(float(rate.rstrip("%")), row[key]) for rate, row in rows.items() if key in row]
            for label, rows in typos.items()
        }
        if any(series.values()):
            drawn.append(plots.curves(title, series, marker="o", x_label="% of characters with a typo"))
    return drawn
