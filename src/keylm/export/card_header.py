"""The YAML header of the model card, which the Hugging Face hub reads."""

from __future__ import annotations

from huggingface_hub import EvalResult, ModelCardData

from keylm.data.sources.registry import source_type
from keylm.evaluate.results import last_finetuned_stage
from keylm.export.card_scores import measured
from keylm.export.card_training import mixture_sources, published_name
from keylm.gguf.file import license_of
from keylm.run import Run
from keylm.stages import completed_training_stages


def card_header(run: Run) -> ModelCardData:
    """What the hub shows and searches: names, license, data sets, and the scores as a `model-index`."""
    recipe = run.recipe
    datasets = {source_type(source).hub_dataset(source) for source in mixture_sources(run)}
    base_model = published_name(run.base_model) if run.base_model else ""
    return ModelCardData(
        model_name=recipe.title or recipe.name,
        # Only a name on the hub leads anywhere.
        base_model=base_model if "/" in base_model else None,
        language=recipe.export.language or None,
        license=license_of(run),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[
            "keylm",
            *(["chat"] if is_chat_model(run) else []),
            "small-language-model",
            *(["gguf"] if recipe.export.gguf else []),
        ],
        datasets=sorted(dataset for dataset in datasets if dataset) or None,
        eval_results=_eval_results(run) or None,
    )


def is_chat_model(run: Run) -> bool:
    """Whether the released weights were trained to answer, here or before they were imported."""
    return completed_training_stages(run)[-1:] != ["pretrain"]


def _eval_results(run: Run) -> list[EvalResult]:
    """Scores of the released weights: on lm_eval tasks, on held-out instructions, and in bits per byte."""
    results = [
        _eval_result(task, metric, score)
        for task, row in measured(run, "lm_eval").items()
        for metric, score in row["scores"].items()
    ]
    instructions = measured(run, "instruction_following")
    if stage := last_finetuned_stage(instructions):
        score = instructions[stage]["instruction_accuracy"]
        results.append(_eval_result("held-out instructions of KeyLM", "instruction_accuracy", score))
    released = completed_training_stages(run)[-1:]
    results.extend(
        _eval_result(f"held-out text of {source}", "bits_per_byte", row[stage])
        for source, row in measured(run, "bits_per_byte").items()
        for stage in released
        if stage in row
    )
    return results


def _eval_result(dataset: str, metric: str, value: float) -> EvalResult:
    return EvalResult(
        task_type="text-generation", dataset_type=dataset, dataset_name=dataset, metric_type=metric, metric_value=value
    )
