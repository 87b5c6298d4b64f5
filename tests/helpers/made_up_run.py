"""A run that never trained: metadata, metrics and measurements of plausible sizes, for tests that only read them."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from keylm import run as runs
from keylm.common.files import write_json
from keylm.recipe import Recipe
from keylm.run import Run
from keylm.stages import stages_of

ATTACK = "<script>alert('owned')</script><img src=http://evil.example/x.png onerror=alert(1)>"
CONSTRAINTS = {"keywords": 14, "lower case": 14, "number of sentences": 13, "repeat the request": 12}
DROPPED = {"prose": {"contaminated: piqa": 3, "too short": 12_345}, "talk": {"duplicate": 7}}
SFT_ANSWERS = {
    "bits_per_byte": {"talk": {"answers": 200, "pretrain": 1.8123, "sft": 1.4931}},
    "constrained": {"checked": {"answers": 150, "original": 1.71, "constrained": 1.79, "relative_increase": 0.0468}},
}
HELD_OUT_SAMPLE = {
    "source": "talk",
    "messages": [{"role": "user", "content": "When is the market?"}],
    "prompt": "",
    "answer": "On Sunday.",
    "ended": True,
    "reference": "Every Friday, from eight to noon.",
}
MIXTURE = {"prose": (0.6, 0.5991), "talk": (0.4, 0.4009)}


def made_up_run(folder: Path, **sections: object) -> Run:
    """A run with every stage finished; `sections` are more of its recipe."""
    recipe = Recipe.model_validate(
        {
            "name": "made-up",
            "title": "Made-up 6M",
            "model": {"vocab_size": 4096, "hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 704},
            "data": {
                "sources": [{"type": "installed-docs", "name": name} for name in [*MIXTURE, "gated"]],
                "clean": {"decontaminate": ["piqa"]},
            },
            **sections,
        }
    )
    run = runs.create(recipe, folder)
    for number, stage in enumerate(stage.name for stage in stages_of(run)):
        run.begin(stage)
        run.finish(stage, {**_metadata(stage), "seconds": 31.7 * number, "peak_memory_bytes": (number + 1) << 28})
    for stage in ("pretrain", "sft"):
        write_metrics(run, stage)
        run.weights(stage).parent.mkdir()
        save_file({stage: torch.zeros(1)}, run.weights(stage))
    for name, counts in DROPPED.items():
        folder = run.stage("prepare") / "pretrain" / name
        folder.mkdir(parents=True)
        write_json(folder / "dropped.json", {"counts": counts, "samples": {reason: [ATTACK] for reason in counts}})
    (run.stage("prepare") / "pretrain" / "gated").mkdir()
    write_json(run.stage("prepare") / "pretrain" / "gated" / "manifest.json", {"missing": "its terms are not accepted"})
    write_json(run.stage("eval") / "bits_per_byte.json", {name: _bits(name) for name in MIXTURE})
    write_json(
        run.stage("eval") / "instruction_following.json", {"pretrain": made_up_scores(0.1), "sft": made_up_scores(0.75)}
    )
    write_json(run.stage("eval") / "sft_answers.json", SFT_ANSWERS)
    write_json(run.stage("eval") / "typo_robustness.json", _typo_robustness())
    samples = [HELD_OUT_SAMPLE, {**HELD_OUT_SAMPLE, "answer": ATTACK, "ended": False}]
    settings = {"temperature": 0.7, "repetition_penalty": 1.1}
    write_json(run.stage("eval") / "held_out_samples.json", {**settings, "samples": samples})
    write_json(run.stage("eval") / "lm_eval.json", {"piqa": made_up_task(0.5413), "hellaswag": made_up_task(0.2691)})
    return run


def write_metrics(run: Run, stage: str, num_steps: int = 900) -> None:
    """Training's metrics: a row for every step, and four validations."""
    rows: list[dict[str, Any]] = []
    for step in range(1, num_steps + 1):
        loss = 2.4 + 6 * math.exp(-step / 90) + 0.05 * math.sin(step * 7)
        rate = 3e-3 * min(step / 20, 1, (num_steps + 1 - step) / 180)
        more = {"grad_norm": 1 + 1 / step, "tokens_per_second": 9000 + step}
        rows.append({"step": step, "tokens": step * 4096, "loss": loss, "learning_rate": rate, **more})
        if step % (num_steps // 4) == 0:
            scores = {name: 1.9 + 2 * math.exp(-step / 200) + 0.2 * row for row, name in enumerate(MIXTURE)}
            rows.append({"step": step, "tokens": step * 4096, "validation": scores})
    (run.stage(stage) / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _metadata(stage: str) -> dict[str, Any]:
    if stage == "prepare":
        sides = {"train": {"tokens": 4_100_000}, "validation": {"tokens": 21_000}}
        return {"pretrain": dict.fromkeys(MIXTURE, sides), "sft": {"instructions": sides}}
    if stage == "pretrain":
        mixture = {name: _share(*shares) for name, shares in MIXTURE.items()}
        return {"mixture": mixture, "tokens": 4_000_000, "training_seconds": 31.7}
    if stage == "sft":
        return {"mixture": {"instructions": _share(1.0, 1.0)}}
    return {}


def _share(requested: float, realized: float) -> dict[str, float]:
    return {"requested": requested, "realized": realized, "tokens": round(realized * 3_686_400)}


def _bits(name: str) -> dict[str, Any]:
    size = {"bytes": 1_000_345, "documents": 371, "tokens": 301_222}
    return {**size, "pretrain": 1.9312, "sft": 2.0141, "xz": 2.1714 if name == "prose" else 1.311}


def made_up_scores(accuracy: float) -> dict[str, Any]:
    samples = [_sample("Write about tides in lower case.", "the tide comes and goes."), _sample(ATTACK, ATTACK)]
    return {
        **_measured(accuracy),
        "not_significantly_above": ["echoed prompt"] if accuracy < 0.5 else [],
        "splits": {"new kinds": {**_measured(accuracy / 2), "not_significantly_above": ["echoed prompt"]}},
        "samples": samples * 3,
    }


def _measured(accuracy: float) -> dict[str, Any]:
    baselines = {"constant sentence": 0.14, "echoed prompt": 0.43, "empty": 0.0}
    return {
        **_score(accuracy),
        "reference_prompt_copy": 0.15,
        "bits_per_byte": 1.2345,
        "baselines": {name: _score(share) for name, share in baselines.items()},
    }


def _score(share: float) -> dict[str, Any]:
    return {
        "instruction_accuracy": share,
        "copy_accuracy": share * 0.5,
        "copy_tasks": 30,
        "prompt_accuracy": share * 0.9,
        "topic_mentioned": share * 0.7,
        "instructions": sum(CONSTRAINTS.values()),
        "prompts": 40,
        "topic_prompts": 30,
        "standard_error": 0.03,
        "prompt_copy": 0.2,
        "num_words": 17.5,
        "topic_match": 0.875,
        "truncated": 0.0625,
        "looping": 0.03125,
        "by_constraint": {name: {"followed": round(share * num), "total": num} for name, num in CONSTRAINTS.items()},
    }


def _sample(prompt: str, answer: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {
        "messages": messages,
        "topic": "tides",
        "topic_mentioned": False,
        "constraints": ["lower case"],
        "followed": [True],
    }


def _typo_robustness() -> dict[str, Any]:
    counts = {"passages": 200, "bytes": 33_910, "prompts": 60, "instructions": 83}
    return {**counts, "pretrain": _typo_rows(1.8, 0.1), "sft": _typo_rows(1.9, 0.7)}


def _typo_rows(bits: float, accuracy: float) -> dict[str, dict[str, float]]:
    return {
        f"{percent}%": {
            "bits_per_byte": round(bits + percent / 100, 4),
            "increase": percent / 100,
            "standard_error": 0.0042,
            "instruction_accuracy": accuracy - percent / 100,
            "topic_mentioned": 0.5,
        }
        for percent in (0, 2, 5, 10)
    }


def made_up_task(score: float) -> dict[str, Any]:
    baselines = {"chance": 0.25, "longest choice": 0.243, "shortest choice": 0.262}
    metrics = {"acc": score, "acc_norm": score + 0.01}
    return {
        "documents": 1838,
        "version": 1.0,
        "scores": metrics,
        "standard_errors": dict.fromkeys(metrics, 0.0116),
        "baselines": dict.fromkeys(metrics, baselines),
        "not_significantly_above": {metric: [] for metric in metrics},
        "answer_statistics": {"prompt_copy": 0.31},
        "by_instruction": {"punctuation:no_comma": {"followed": 7, "total": 12, "baselines": {"echoed prompt": 4}}},
    }
