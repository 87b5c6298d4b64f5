"""Score trainings of runs on the held-out instructions: `python benchmarks/instructions.py RUN:STAGE ... --tasks 600`.

What the `eval` stage measures, for any weights: for ablations, where many trainings are to be compared. A stage is
`pretrain`, `sft`, `dpo` or `grpo`. The tasks are those of every kind of constraint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from keylm.commands.score_tables import print_instruction_scores
from keylm.common.console import console
from keylm.evaluate.chat_models import run_chat_model
from keylm.evaluate.instruction_following import held_out_splits, measure_instruction_following
from keylm.instructions.constraints.catalog import CONSTRAINT_SETS
from keylm.run import open_run


def main() -> None:
    """Print the tables of each training."""
    options = _options()
    for name in options.trainings:
        folder, _, stage = name.rpartition(":")
        run = open_run(Path(folder))
        splits = held_out_splits(options.tasks, run.recipe.seed, CONSTRAINT_SETS["all"])
        model = run_chat_model(run, stage)
        console.print(f"[bold]{name}[/]")
        print_instruction_scores(measure_instruction_following(model, splits, options.tokens))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("trainings", nargs="+", metavar="RUN:STAGE")
    parser.add_argument("--tasks", type=int, default=600, help="tasks of the headline; a quarter of each other split")
    parser.add_argument("--tokens", type=int, default=160, help="most tokens of an answer")
    return parser.parse_args()


if __name__ == "__main__":
    main()
