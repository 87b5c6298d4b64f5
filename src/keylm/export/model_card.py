"""The model card: a README with the YAML header of the Hugging Face hub, filled in from the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import ModelCardData

from keylm.data.sources.registry import source_type
from keylm.export.card_scores import scores_section
from keylm.export.markdown import markdown_table
from keylm.export.quantization_quality import NUM_TOKENS
from keylm.gguf.file import license_of
from keylm.gguf.locate import preferred_file_type
from keylm.recipe import Recipe
from keylm.recipe.train import TrainConfig
from keylm.run import Run
from keylm.shipped import SHIPPED
from keylm.stages import Stage, stages_of

_GGUF_USAGE = """
With llama.cpp, using any of the GGUF files ($file_types):

```sh
llama-cli -m $name-$file_type.gguf
llama-server -m $name-$file_type.gguf
```

With Ollama, in the folder with the Modelfile:

```sh
ollama create $name -f Modelfile
ollama run $name
```
"""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

_LICENSES = {
    "apache-2.0": "The weights are licensed under Apache-2.0. The training texts have the licenses listed above.",
    "other": "The weights have the license of the model that they were imported from.",
}


def render_model_card(run: Run, num_parameters: int, quality: dict[str, Any], verification: dict[str, Any]) -> str:
    """Render the card of a run's export, including its YAML header.

    Args:
        run: The run; scores are included if its `eval` stage has any.
        num_parameters: Number of parameters of the model.
        quality: The result of `quantization_quality.measure_quantization`.
        verification: The result of `verify.verify_export`.
    """
    recipe = run.recipe
    model = recipe.model
    # Of an imported chat model nothing was trained here, so the card must not claim more than the export.
    origin = "trained from scratch"
    if run.imported_from("tokenizer"):
        origin = "fine-tuned" if _stages_trained_here(run) else "exported"
    template = Template(resources.files("keylm.export").joinpath("card.md").read_text(encoding="utf-8"))
    # Not `safe_substitute`: a placeholder without a value should fail here, not be published.
    body = template.substitute(
        title=recipe.title or recipe.name,
        parameters=f"{num_parameters:,}",
        layers=model.num_hidden_layers,
        hidden=model.hidden_size,
        heads=model.num_attention_heads,
        kv_heads=model.num_key_value_heads,
        head_dim=model.head_dim,
        intermediate=model.intermediate_size,
        context=f"{model.max_position_embeddings:,}",
        vocab=f"{model.vocab_size:,}",
        pre_tokenizer=recipe.tokenizer.pre_tokenizer,
        made=origin,
        gguf_usage=_gguf_usage(recipe),
        gguf_files=quantization_section(quality),
        training=_training(run),
        scores=scores_section(run),
        verification=_verification_section(verification),
        license=_LICENSES[license_of(run)],
    )
    return f"---\n{_header(run).to_yaml()}\n---\n\n{body}"


def shipped_card(run: Run) -> str | None:
    """The card of the shipped model whose weights a run exports unchanged; None if they are others."""
    name = run.imported_from("tokenizer")
    if not name or not run.metadata("tokenizer").get("shipped") or _stages_trained_here(run):
        return None
    return (SHIPPED[name].folder / "README.md").read_text(encoding="utf-8")


def quantization_section(quality: dict[str, Any]) -> str:
    """The table of GGUF files, from the result of `measure_quantization`; empty if there are none."""
    if not quality:
        return ""
    exact = quality.get("F32", {}).get("perplexity")
    header, measured = ["file type", "size", "bits per weight"], ""
    if exact:
        header += ["perplexity", "change from F32"]
        measured = f", and their perplexity on {NUM_TOKENS:,} tokens of held-out text"
    rows = []
    for file_type, row in quality.items():
        # F32 has a row for its perplexity even if no such file is exported.
        size = f"{row['bytes'] / 1e6:,.1f} MB" if "bytes" in row else ""
        cells = [f"`{file_type}`", size, row.get("bits_per_weight", "")]
        if exact:
            cells += [f"{row['perplexity']:.3f}", f"{row['perplexity'] / exact - 1:+.2%}"]
        rows.append(cells)
    return f"\nThe GGUF files{measured}:\n\n{markdown_table(header, *rows)}"


def _header(run: Run) -> ModelCardData:
    recipe = run.recipe
    sources = [source for stage in _stages_trained_here(run) for source in _sources(run, stage)]
    datasets = {source_type(source).hub_dataset(source) for source in sources}
    return ModelCardData(
        model_name=recipe.title or recipe.name,
        language="en",
        license=license_of(run),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["keylm", "chat", "small-language-model", *(["gguf"] if recipe.export.gguf else [])],
        datasets=sorted(dataset for dataset in datasets if dataset) or None,
    )


def _gguf_usage(recipe: Recipe) -> str:
    file_types = recipe.export.gguf
    if not file_types:
        return ""
    best = preferred_file_type(file_types)
    return Template(_GGUF_USAGE).substitute(name=recipe.name, file_type=best, file_types=", ".join(file_types))


def _training(run: Run) -> str:
    """One paragraph per training stage, with a table of sources where the stage has a mixture."""
    paragraphs = []
    if imported_from := run.imported_from("tokenizer"):
        name = _published_name(imported_from)
        paragraphs.append(f"The weights were imported from `{name}`; see there for their training.\n")
    # The text of each stage is in the table of stages, so that a new one cannot be forgotten here.
    for stage in _stages_trained_here(run):
        paragraphs.append(stage.card_text.format(config=stage.config(run)) + "\n")
        if sources := _sources(run, stage):
            paragraphs.append(_source_table(sources))
    return "\n".join([*paragraphs, "The complete configuration is in `recipe.yaml` of the run."])


def _published_name(imported_from: str) -> str:
    """The name of an imported model: that on the hub, or that of a folder, whose path is nobody else's business."""
    if _HUB_NAME.fullmatch(imported_from) and not Path(imported_from).exists():
        return imported_from
    return Path(imported_from).resolve().name


def _stages_trained_here(run: Run) -> list[Stage]:
    """The training stages of the recipe, in order, without those whose weights were imported."""
    return [stage for stage in stages_of(run) if stage.trains and not run.imported_from(stage.name)]


def _sources(run: Run, stage: Stage) -> list[Any]:
    """The sources of a stage that trains on a mixture; DPO and GRPO have none of their own."""
    return run.recipe.sources_of(stage.name) if isinstance(stage.config(run), TrainConfig) else []


def _source_table(sources: Sequence[Any]) -> str:
    total = sum(source.weight for source in sources)
    rows = [
        [
            source_type(source).label(source),
            source.category,
            f"{source.weight / total:.1%}",
            _license(source),
        ]
        for source in sources
    ]
    return markdown_table(["source", "category", "share", "license"], *rows)


def _license(source: Any) -> str:
    """The license of the text that a source is made from, however many sources stand in between."""
    origin = source_type(source).origin(source)
    if origin.license or origin is source:
        return origin.license or "not stated"
    return _license(origin)


def _verification_section(verification: dict[str, Any]) -> str:
    rows = [[name, "equal", "equal", f"{value:.2g}"] for name, value in verification["differences"].items()]
    header = ["engine and file", "token ids", "rendered conversations", "largest log-probability difference"]
    return (
        "\n## Verification\n\n"
        f"During export, each engine tokenized {verification['texts']:,} stress texts (every assigned Unicode code "
        f"point, emoji sequences, whitespace, control tokens) and rendered {verification['conversations']} "
        "conversations. The results were compared with those of the training code, in float32. The difference is in "
        f"nats, over the ten most likely next tokens:\n\n{markdown_table(header, *rows)}"
    )
