"""Score trainings of runs on the held-out instructions: `python benchmarks/instructions.py RUN:STAGE ... --tasks 600`.

What the `eval` stage measures, for any weights and with the answers written by llama.cpp: for ablations, where many
trainings are to be compared. A stage is `pretrain`, `sft` or `dpo`. The tasks are those of every kind of constraint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keylm import chat
from keylm import model as models
from keylm.chat import Message
from keylm.data.instructions import KIND_SETS
from keylm.evaluate import llama_writer
from keylm.evaluate.answers import Answer
from keylm.evaluate.instructions import measure, show, splits
from keylm.evaluate.llama_writer import LlamaWriter
from keylm.evaluate.native_speaker import NativeSpeaker
from keylm.run import Run, open_run
from keylm.screen import console
from keylm.tokenizer import Tokenizer


@dataclass(frozen=True)
class WritingSpeaker(NativeSpeaker):
    """Our own model as a speaker, whose answers llama.cpp writes."""

    writer: LlamaWriter

    def answer(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """The likeliest next turn of each conversation."""
        prompts = [chat.encode(self.tokenizer, messages, add_generation_prompt=True)[0] for messages in conversations]
        return self.writer.write(prompts, max_new_tokens)


def main() -> None:
    """Print the tables of each training."""
    options = _options()
    for name in options.trainings:
        folder, _, stage = name.rpartition(":")
        run = open_run(Path(folder))
        tasks = splits(options.tasks, run.recipe.seed, KIND_SETS["all"])
        speaker = _speaker(run, stage)
        console.print(f"[bold]{name}[/]")
        show({split: measure(speaker, each, options.tokens) for split, each in tasks.items()})


def _speaker(run: Run, stage: str) -> WritingSpeaker:
    plain = models.load(run.recipe.model, run.weights(run.trained[0]))
    return WritingSpeaker(plain, Tokenizer.load(run.stage("tokenizer")), plain, llama_writer.of_run(run, stage))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("trainings", nargs="+", metavar="RUN:STAGE")
    parser.add_argument("--tasks", type=int, default=600, help="tasks of the headline; a quarter of each other split")
    parser.add_argument("--tokens", type=int, default=160, help="most tokens of an answer")
    return parser.parse_args()


if __name__ == "__main__":
    main()
