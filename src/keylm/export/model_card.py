"""The model card: a README with the YAML header of the Hugging Face hub, filled in from the run."""

from __future__ import annotations

from importlib import resources
from importlib.metadata import metadata
from string import Template
from typing import Any

from keylm.evaluate.results import last_finetuned_stage
from keylm.export.card_header import card_header, is_chat_model
from keylm.export.card_scores import measured, scores_section
from keylm.export.card_training import stages_trained_here, training_section
from keylm.export.markdown import markdown_table
from keylm.export.quantization_quality import NUM_TOKENS
from keylm.gguf.file import license_of
from keylm.gguf.locate import preferred_file_type
from keylm.recipe import Recipe
from keylm.run import Run
from keylm.shipped import SHIPPED

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
    if run.base_model:
        origin = "fine-tuned" if stages_trained_here(run) else "exported"
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
        kind="chat model" if is_chat_model(run) else "language model, not yet trained to chat,",
        made=origin,
        maker=_maker(),
        description=_description(recipe),
        sampling=_sampling(recipe),
        sample=_sample(run),
        gguf_usage=_gguf_usage(recipe),
        gguf_files=quantization_section(quality),
        training=training_section(run),
        scores=scores_section(run),
        verification=_verification_section(verification),
        license=_license_text(run),
    )
    return f"---\n{card_header(run).to_yaml()}\n---\n\n{body}"


def shipped_card(run: Run) -> str | None:
    """The card of the shipped model whose weights a run exports unchanged; None if they are others."""
    name = run.imported_from("tokenizer")
    if not name or not run.metadata("tokenizer").get("shipped") or stages_trained_here(run):
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


def _gguf_usage(recipe: Recipe) -> str:
    file_types = recipe.export.gguf
    if not file_types:
        return ""
    best = preferred_file_type(file_types)
    return Template(_GGUF_USAGE).substitute(name=recipe.name, file_type=best, file_types=", ".join(file_types))


def _license_text(run: Run) -> str:
    license_id = license_of(run)
    if license_id == "other":
        return "The weights have the license of the model that they were imported from."
    weights = (
        f"The license of the weights is {license_id}." if license_id else "The license of the weights is not stated."
    )
    return f"{weights} The training texts have the licenses listed above."


def _maker() -> str:
    """KeyLM with its version, and a link to its home page if the installed package names one."""
    package = metadata("keylm")
    urls = dict(entry.split(", ", 1) for entry in package.get_all("Project-URL") or [])
    name = f"[KeyLM]({urls['Homepage']})" if "Homepage" in urls else "KeyLM"
    return f"{name} {package['Version']}"


def _description(recipe: Recipe) -> str:
    author = f"Made by {recipe.export.author}." if recipe.export.author else ""
    return "".join(f"\n{paragraph.strip()}\n" for paragraph in (recipe.export.description, author) if paragraph)


def _sampling(recipe: Recipe) -> str:
    """The sampling defaults that all formats carry."""
    export = recipe.export
    temperature = f"temperature {export.temperature:g}" if export.temperature else "greedy decoding"
    penalty = f"repetition penalty {export.repetition_penalty:g}" if export.repetition_penalty != 1 else "no penalties"
    return f"{temperature}, {penalty}"


def _sample(run: Run) -> str:
    """The first conversation of the evaluation, whatever it is; empty if there is none."""
    scores = measured(run, "instruction_following")
    stage = last_finetuned_stage(scores)
    if not stage or not scores[stage].get("samples"):
        return ""
    messages = scores[stage]["samples"][0]["messages"]
    lines = "\n".join(f"{message['role']}: {message['content']}" for message in messages).splitlines()
    # Indented, because an answer may contain whatever would end another kind of block.
    return "\nThe first held-out request of the evaluation, answered greedily:\n\n" + "".join(
        f"    {line}\n" for line in lines
    )


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
