"""`keylm sample`: what the weights of a stage, or of a checkpoint in the middle of one, write."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text
from safetensors.torch import load_file

from keylm.common.console import console, output, printable
from keylm.common.errors import UserError
from keylm.inference.generator import KeyLMGenerator, generator_of_weights
from keylm.inference.samples import SEED, Sample, released_answers, sample_held_out
from keylm.run import Run
from keylm.stages import training_stages
from keylm.tokenizer.messages import encode_messages

_NUM_SAMPLES = 3
_MAX_NEW_TOKENS = 160


def show_samples(run: Run, prompt: str | None = None, stage: str | None = None, step: int | None = None) -> None:
    """Print what the model makes of a prompt, or else of the first held-out ones, beside what these say.

    Weights of pretraining continue text; later ones answer a user.

    Args:
        run: The run.
        prompt: Text to continue, or the user's message.
        stage: Training stage; by default the latest one that has weights.
        step: Step of a checkpoint; by default the final weights, or those of the latest checkpoint.

    Raises:
        UserError: There are no such weights, or neither a prompt nor held-out documents.
    """
    stage, path = find_weights(run, stage, step)
    console.print(f"[dim]{path}[/]")
    generator = generator_of_weights(run, load_file(path))
    if prompt is not None:
        output.print(_continue(run, generator, stage, prompt))
        return
    samples = sample_held_out(run, generator, stage, _NUM_SAMPLES, _MAX_NEW_TOKENS)
    if not samples:
        raise UserError(f"{run.folder} has no held-out documents: give a prompt, `keylm sample {run.folder} 'Once'`")
    for sample in samples:
        output.print(paint_sample(sample))


def find_weights(run: Run, stage: str | None, step: int | None) -> tuple[str, Path]:
    """The training stage, and the file of its final weights or of a checkpoint.

    Raises:
        UserError: There are none.
    """
    stages = training_stages(run)
    if stage is not None and stage not in stages:
        raise UserError(f"--stage {stage}: the training stages of {run.folder} are {', '.join(stages)}")
    for name in [stage] if stage else reversed(stages):
        if step is None and run.weights(name).exists():
            return name, run.verified_weights(name)
        checkpoints = _checkpoints(run, name)
        if checkpoints:
            if step is not None and step not in checkpoints:
                steps = ", ".join(f"{number:,}" for number in checkpoints)
                raise UserError(f"--step {step}: {name} has checkpoints of the steps {steps}")
            return name, checkpoints[max(checkpoints) if step is None else step]
    raise UserError(
        f"{run.folder} has no {'weights' if step is None else 'checkpoints'}{f' of {stage}' if stage else ''}: "
        f"run `keylm {stage or stages[0]} {run.folder}` first"
    )


def paint_sample(sample: Sample) -> Text:
    """A prompt, the answer, and what the document says, for a terminal."""
    turns = [(message["role"], message["content"]) for message in sample["messages"]]
    prompt = "\n".join(f"{role}: {content}" for role, content in turns) or sample["prompt"]
    return Text.assemble(
        (f"\n{sample['source']}, held out\n", "dim"),
        (printable(prompt), "bold"),
        # A text goes on where it was cut; an answer begins a line.
        "\n" if turns else "",
        (printable(sample["answer"]), "cyan"),
        ("" if sample["ended"] else " …", "dim"),
        (f"\n{'the answer there' if turns else 'the text there'}: {printable(sample['reference']).strip()}", "dim"),
    )


def _continue(run: Run, generator: KeyLMGenerator, stage: str, prompt: str) -> Text:
    tokenizer = generator.tokenizer
    if stage == "pretrain":
        ids = [tokenizer.end_of_text, *tokenizer.encode(prompt)]
    else:
        ids, _ = encode_messages(tokenizer, [{"role": "user", "content": prompt}], add_generation_prompt=True)
    context_length = run.recipe.model.max_position_embeddings
    if len(ids) >= context_length:
        raise UserError(f"the prompt has {len(ids):,} tokens, and the context {context_length:,}: shorten it")
    [answer] = released_answers(generator, run.recipe.export, [ids], _MAX_NEW_TOKENS, SEED)
    separator = "" if stage == "pretrain" else "\n"
    return Text.assemble(
        (prompt, "bold"), separator, (printable(answer.text), "cyan"), ("" if answer.ended else " …", "dim")
    )


def _checkpoints(run: Run, stage: str) -> dict[int, Path]:
    """Weights of the checkpoints of pretraining or SFT, by their step."""
    folders = sorted((run.stage(stage) / "checkpoints").glob("step-*"))
    return {
        int(folder.name.removeprefix("step-")): folder / "model.safetensors" for folder in folders if not folder.suffix
    }
