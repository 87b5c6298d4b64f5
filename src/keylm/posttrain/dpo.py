"""Preference tuning: direct preference optimisation (Rafailov et al. 2023), by trl, on answers and their broken twins.

Twins differ in little, and DPO alone then makes both less likely (Razin et al. 2024): the loss on the chosen answer is
added to it, as in Pang et al. 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keylm.common.documents import Message
from keylm.instructions.task import assistant_message
from keylm.posttrain.preference_pairs import PreferencePair, make_pairs
from keylm.posttrain.trl_trainer import Policy, run_trl, trl_arguments
from keylm.run import Run

if TYPE_CHECKING:
    from trl import DPOConfig, DPOTrainer


def run_dpo(run: Run) -> dict[str, Any]:
    """Train the SFT weights to prefer verified answers to their broken twins; leaves what other trainings leave.

    Raises:
        TrainingStoppedError: Ctrl-C or SIGTERM; everything is saved.
        UserError: trl is not installed, the sources give too few pairs, or there are several ranks.
        KeyLMError: the loss is not a number.
    """
    settings = run.recipe.dpo
    assert settings is not None

    def trainer(policy: Policy) -> DPOTrainer:
        """trl's; the reference's likelihoods are computed here, once."""
        from datasets import Dataset
        from trl import DPOTrainer

        return DPOTrainer(
            model=policy.model,
            args=_config(run),
            train_dataset=Dataset.from_list([_row(pair) for pair in make_pairs(run, settings.num_pairs)]),
            processing_class=policy.tokenizer,
        )

    def measures(logs: dict[str, float]) -> dict[str, float]:
        return {"preferred": logs["rewards/accuracies"], "margin": logs["rewards/margins"] / settings.beta}

    return {"pairs": settings.num_pairs, **run_trl(run, "dpo", trainer, measures)}


def _config(run: Run) -> DPOConfig:
    from trl import DPOConfig

    settings = run.recipe.dpo
    assert settings is not None
    return DPOConfig(
        **trl_arguments(run, "dpo"),
        per_device_train_batch_size=settings.micro_batch_pairs,
        gradient_accumulation_steps=settings.batch_pairs // settings.micro_batch_pairs,
        num_train_epochs=1,
        max_length=run.recipe.sft.sequence_length,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, settings.sft_weight],
        beta=settings.beta,
        precompute_ref_log_probs=True,
    )


def _row(pair: PreferencePair) -> dict[str, Sequence[Message]]:
    """A pair in trl's conversational form, to which it applies the tokenizer's chat template."""
    return {
        "prompt": pair.prompt,
        "chosen": [assistant_message(pair.chosen)],
        "rejected": [assistant_message(pair.rejected)],
    }
