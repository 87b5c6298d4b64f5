"""The stage `dpo`: direct preference optimization (Rafailov et al. 2023), by trl.

The two answers of a pair differ little, and with DPO's loss alone both become less likely (Razin et al. 2024), so the
loss on the chosen answer is added, as in Pang et al. 2024.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keylm.instructions.task import assistant_message
from keylm.posttrain.preference_pairs import make_pairs
from keylm.posttrain.trl_trainer import Policy, run_trl, trl_arguments
from keylm.run import Run

if TYPE_CHECKING:
    from trl import DPOTrainer


def run_dpo(run: Run) -> dict[str, Any]:
    """Train the SFT weights to prefer verified answers over copies that violate one constraint.

    Returns:
        The stage's metadata.

    Raises:
        TrainingStoppedError: on Ctrl-C or SIGTERM, with everything saved.
        UserError: trl is not installed, the sources yield too few pairs, or there are several ranks.
        KeyLMError: the loss is not finite.
    """
    config = run.recipe.dpo
    assert config is not None

    def make_trainer(policy: Policy) -> DPOTrainer:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        # trl's conversational format, to which it applies the tokenizer's chat template.
        rows = [
            {
                "prompt": pair.prompt,
                "chosen": [assistant_message(pair.chosen)],
                "rejected": [assistant_message(pair.rejected)],
            }
            for pair in make_pairs(run, config.num_pairs)
        ]
        arguments = DPOConfig(
            **trl_arguments(run, "dpo", config),
            per_device_train_batch_size=config.micro_batch_pairs,
            gradient_accumulation_steps=config.batch_pairs // config.micro_batch_pairs,
            num_train_epochs=1,
            max_length=run.recipe.sft.sequence_length,
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, config.sft_weight],
            beta=config.beta,
            # Once, before training: the reference model then need not stay in memory.
            precompute_ref_log_probs=True,
        )
        return DPOTrainer(
            model=policy.model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=policy.tokenizer,
        )

    def columns(logs: dict[str, float]) -> dict[str, float]:
        # trl's margin is that of the rewards, which are beta times the change of the log-likelihood.
        return {"preferred": logs["rewards/accuracies"], "margin": logs["rewards/margins"] / config.beta}

    return {"num_pairs": config.num_pairs, **run_trl(run, "dpo", config, make_trainer, columns)}
