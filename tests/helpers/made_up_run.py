"""A run that never trained: facts, metrics and measurements of plausible sizes, for what only reads them."""

import json
import math
from pathlib import Path
from typing import Any

from keylm import run as runs
from keylm.common.files import write_json
from keylm.recipe import Recipe
from keylm.run import Run
from keylm.stages import stages_of

ATTACK = "<script>alert('owned')</script><img src=http://evil.example/x.png onerror=alert(1)>"
KINDS = {"keywords": 14, "lower case": 14, "number of sentences": 13, "repeat the request": 12}
DROPPED = {"prose": {"contaminated: piqa": 3, "too short": 12_345}, "talk": {"duplicate": 7}}
ANSWERS = {
    "predicted": {"talk": {"answers": 200, "pretrain": 1.8123, "sft": 1.4931}},
    "made": {"checked": {"answers": 150, "real": 1.71, "made": 1.79, "rise": 0.0468}},
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
        run.finish(stage, {**_facts(stage), "seconds": 31.7 * number, "peak_memory_bytes": (number + 1) << 28})
    for stage in ("pretrain", "sft"):
        write_metrics(run, stage)
        run.weights(stage).parent.mkdir()
        run.weights(stage).write_bytes(stage.encode())
    for name, counts in DROPPED.items():
        folder = run.stage("prepare") / "pretrain" / name
        folder.mkdir(parents=True)
        write_json(folder / "dropped.json", {"counts": counts, "samples": {reason: [ATTACK] for reason in counts}})
    (run.stage("prepare") / "pretrain" / "gated").mkdir()
    write_json(run.stage("prepare") / "pretrain" / "gated" / "manifest.json", {"missing": "its terms are not accepted"})
    write_json(run.stage("eval") / "bits_per_byte.json", {name: _bits(name) for name in MIXTURE})
    write_json(run.stage("eval") / "instructions.json", {"pretrain": _scores(0.1), "sft": _scores(0.75)})
    write_json(run.stage("eval") / "answers.json", ANSWERS)
    write_json(run.stage("eval") / "typos.json", _typos())
    write_json(run.stage("eval") / "tasks.json", {"piqa": _task(0.5413), "hellaswag": _task(0.2691)})
    return run


def write_metrics(run: Run, stage: str, num_steps: int = 900) -> None:
    """Training's metrics: a row for every step, and four validations."""
    rows: list[dict[str, Any]] = []
    for step in range(1, num_steps + 1):
        loss = 2.4 + 6 * math.exp(-step / 90) + 0.05 * math.sin(step * 7)
        rate = 3e-3 * min(step / 20, 1, (num_steps + 1 - step) / 180)
        rows.append({"step": step, "tokens": step * 4096, "loss": loss, "learning_rate": rate})
        if step % (num_steps // 4) == 0:
            scores = {name: 1.9 + 2 * math.exp(-step / 200) + 0.2 * row for row, name in enumerate(MIXTURE)}
            rows.append({"step": step, "tokens": step * 4096, "validation": scores})
    (run.stage(stage) / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _facts(stage: str) -> dict[str, Any]:
    if stage == "prepare":
        sides = {"train": {"tokens": 4_100_000}, "validation": {"tokens": 21_000}}
        return {"pretrain": dict.fromkeys(MIXTURE, sides), "sft": {"instructions": sides}}
    if stage == "pretrain":
        return {"mixture": {name: _share(*shares) for name, shares in MIXTURE.items()}}
    if stage == "sft":
        return {"mixture": {"instructions": _share(1.0, 1.0)}}
    return {}


def _share(asked: float, realised: float) -> dict[str, float]:
    return {"asked": asked, "realised": realised, "tokens": round(realised * 3_686_400)}


def _bits(name: str) -> dict[str, Any]:
    size = {"bytes": 1_000_345, "documents": 371, "tokens": 301_222}
    return {**size, "pretrain": 1.9312, "sft": 2.0141, "xz": 2.1714 if name == "prose" else 1.311}


def _scores(followed: float) -> dict[str, Any]:
    talks = [_sample("Write about tides in lower case.", "the tide comes and goes."), _sample(ATTACK, ATTACK)]
    return {
        **_measured(followed),
        "within_noise_of": ["echoed prompt"] if followed < 0.5 else [],
        "splits": {"new kinds": {**_measured(followed / 2), "within_noise_of": ["echoed prompt"]}},
        "samples": talks * 3,
    }


def _measured(followed: float) -> dict[str, Any]:
    nulls = {"constant sentence": 0.14, "echoed prompt": 0.43, "empty": 0.0}
    return {
        **_score(followed),
        "echoed_by_examples": 0.15,
        "bits_per_byte": 1.2345,
        "null_answers": {name: _score(share) for name, share in nulls.items()},
    }


def _score(share: float) -> dict[str, Any]:
    return {
        "followed": share,
        "copied": share * 0.5,
        "exercises": 30,
        "prompts_followed": share * 0.9,
        "on_topic": share * 0.7,
        "instructions": sum(KINDS.values()),
        "prompts": 40,
        "topics": 30,
        "standard_error": 0.03,
        "echoed": 0.2,
        "words": 17.5,
        "topical": 0.875,
        "unfinished": 0.0625,
        "looped": 0.03125,
        "by_kind": {kind: {"followed": round(share * count), "of": count} for kind, count in KINDS.items()},
    }


def _sample(prompt: str, answer: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "topic": "tides", "names_topic": False, "kinds": ["lower case"], "followed": [True]}


def _typos() -> dict[str, Any]:
    counts = {"passages": 200, "bytes": 33_910, "prompts": 60, "instructions": 83}
    return {**counts, "pretrain": _typo_rows(1.8, 0.1), "sft": _typo_rows(1.9, 0.7)}


def _typo_rows(bits: float, followed: float) -> dict[str, dict[str, float]]:
    return {
        f"{percent}%": {
            "bits_per_byte": round(bits + percent / 100, 4),
            "rise": percent / 100,
            "standard_error": 0.0042,
            "followed": followed - percent / 100,
            "on_topic": 0.5,
        }
        for percent in (0, 2, 5, 10)
    }


def _task(score: float) -> dict[str, Any]:
    blind = {"chance": 0.25, "longest choice": 0.243, "shortest choice": 0.262}
    metrics = {"acc": score, "acc_norm": score + 0.01}
    return {
        "documents": 1838,
        "version": 1.0,
        "scores": metrics,
        "standard_errors": dict.fromkeys(metrics, 0.0116),
        "null": dict.fromkeys(metrics, blind),
        "within_noise_of": {metric: [] for metric in metrics},
        "answers": {"echoed": 0.31},
    }
