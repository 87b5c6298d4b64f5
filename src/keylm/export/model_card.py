"""The model card: a README whose YAML header the hub understands, filled from the run."""

from __future__ import annotations

from importlib import resources
from string import Template
from typing import Any

from huggingface_hub import ModelCardData

from keylm.data.sources.registry import source_type
from keylm.export.card_scores import markdown_table, scores_section
from keylm.export.quantization_quality import quantization_section
from keylm.export.verify import verification_section
from keylm.gguf.file import license_of
from keylm.gguf.tensor_types import best_type
from keylm.recipe import Recipe
from keylm.run import Run

_GGUF_USAGE = """
With llama.cpp, on the file of your choice ($kinds):

```sh
llama-cli -m $name-$kind.gguf
llama-server -m $name-$kind.gguf
```

With Ollama, in the folder that holds the Modelfile:

```sh
ollama create $name -f Modelfile
ollama run $name
```
"""


_PRETRAINING = """\
Pretraining read $tokens tokens, with $optimizer. Mixture, by share of tokens:

$sources"""
_TUNING = """\
Instruction tuning read $tokens tokens, with the loss on the assistant's words alone. Mixture:

$sources"""
_PREFERENCE = """\
Preference tuning (DPO) read $pairs pairs of answers, of which the first follows its request and the second breaks one
constraint of it.
"""
_REINFORCEMENT = """\
Reinforcement learning (GRPO) judged $answers answers of the model's own, by whether they follow their requests and are
about them.
"""
_LICENCES = {
    "apache-2.0": "The weights are under Apache-2.0. The texts they learned from are under the licences listed above.",
    "other": "The weights are under the licence of the model that they were imported from.",
}


def render_model_card(run: Run, num_parameters: int, quality: dict[str, Any], checked: dict[str, Any]) -> str:
    """The card of a run's release, YAML header included.

    `quality` is what `quantization_quality.measure` found, `checked` what `verify.check` did.
    """
    recipe = run.recipe
    model = recipe.model
    template = Template(resources.files("keylm.export").joinpath("card.md").read_text(encoding="utf-8"))
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
        gguf_usage=_gguf_usage(recipe),
        made=_made(run),
        training=_training(run),
        licence=_LICENCES[license_of(run)],
        gguf_files=quantization_section(quality),
        scores=scores_section(run),
        checked=verification_section(checked),
    )
    return f"---\n{_header(run).to_yaml()}\n---\n\n{body}"


def _header(run: Run) -> ModelCardData:
    recipe = run.recipe
    learned = [
        source for stage in ("pretrain", "sft") if not run.imported_from(stage) for source in recipe.sources_of(stage)
    ]
    datasets = {source_type(source).hub_dataset(source) for source in learned}
    return ModelCardData(
        model_name=recipe.title or recipe.name,
        language="en",
        license=license_of(run),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["keylm", "chat", "small-language-model", *(["gguf"] if recipe.export.gguf else [])],
        datasets=sorted(dataset for dataset in datasets if dataset) or None,
    )


def _made(run: Run) -> str:
    if not run.imported_from("pretrain"):
        return "trained from scratch"
    return "exported" if run.imported_from("sft") else "tuned"


def _training(run: Run) -> str:
    """What shaped the weights: two stages with their mixtures, or where the weights came from."""
    recipe, origin = run.recipe, run.imported_from("pretrain")
    parts = [f"The weights were imported from `{origin}`: how they were trained is told there.\n"] if origin else []
    for stage, template in {"pretrain": _PRETRAINING, "sft": _TUNING}.items():
        if not run.imported_from(stage):
            training = recipe.training(stage)
            facts = {"tokens": f"{training.tokens:,}", "optimizer": training.optimizer.type}
            parts.append(Template(template).substitute(**facts, sources=_source_table(recipe.sources_of(stage))))
    if recipe.dpo:
        parts.append(Template(_PREFERENCE).substitute(pairs=f"{recipe.dpo.num_pairs:,}"))
    if recipe.grpo:
        parts.append(Template(_REINFORCEMENT).substitute(answers=f"{recipe.grpo.num_answers:,}"))
    return "\n".join([*parts, "Everything that shaped the model here is in the recipe, `recipe.yaml`, of its run."])


def _gguf_usage(recipe: Recipe) -> str:
    kinds = recipe.export.gguf
    if not kinds:
        return ""
    return Template(_GGUF_USAGE).substitute(name=recipe.name, kind=best_type(kinds), kinds=", ".join(kinds))


def _source_table(sources: list[Any]) -> str:
    total = sum(source.weight for source in sources)
    rows = [
        [
            source_type(source).label(source),
            source.category,
            f"{source.weight / total:.1%}",
            source_type(source).origin(source).license or "not stated",
        ]
        for source in sources
    ]
    return markdown_table(["source", "category", "share", "licence"], *rows)
