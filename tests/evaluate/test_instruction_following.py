import json
import math

import pytest
import torch
from helpers.tiny_run import tiny_run

from keylm.evaluate.baselines import CONSTANT_SENTENCE, trivial_baselines
from keylm.evaluate.bits_per_byte import plain_bits_per_byte
from keylm.evaluate.chat_models import RunChatModel, run_chat_model
from keylm.evaluate.instruction_following import held_out_splits, measure_instruction_following, score_answers
from keylm.instructions.constraints.catalog import BASIC_CONSTRAINTS, EndPhrase, NoCommas, Quotation, Uppercase
from keylm.instructions.splits import SPLITS, held_out
from keylm.instructions.task import Example, Task, user_message
from keylm.model.transformer import KeyLM
from keylm.recipe.model import ModelConfig
from keylm.tokenizer.training import train_tokenizer

TASKS = [
    Task([user_message("Quote olives.")], "olives", (Quotation(), NoCommas())),
    Task([user_message("Shout about ants.")], "ants", (Uppercase(),)),
    Task([user_message("Say bye.")], None, (EndPhrase("Bye."),)),
    Task([user_message("Tell me about bees.")], "bees"),
]
RIGHT = ['"Black olives"', "ABOUT ants.", "bye.", "about bees. Bees"]
EXAMPLES = [Example(task, answer) for task, answer in zip(TASKS, RIGHT, strict=True)]


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> RunChatModel:
    return run_chat_model(tiny_run(tmp_path_factory.mktemp("chat-model") / "run"), "sft")


def test_a_score_by_hand() -> None:
    scores = score_answers(['"Olives, please"', "ANTS", "Bye. Or not.", "Wasps"], TASKS)
    assert (scores.instruction_accuracy.num_correct, scores.instruction_accuracy.total) == (2, 3)
    assert (scores.copy_accuracy.num_correct, scores.copy_accuracy.total) == (0, 1)
    assert (scores.prompt_accuracy.num_correct, scores.prompt_accuracy.total) == (1, 2)
    assert (scores.topic_mentioned.num_correct, scores.topic_mentioned.total) == (2, 3)
    assert {name: (row.num_correct, row.total) for name, row in scores.by_constraint.items()} == {
        "quotation marks": (1, 1),
        "no commas": (0, 1),
        "all capitals": (1, 1),
        "end phrase": (0, 1),
    }


def test_empty_answers_follow_nothing() -> None:
    scores = score_answers(["", " ", "\n", ""], TASKS)
    accuracies = (scores.instruction_accuracy, scores.prompt_accuracy, scores.topic_mentioned)
    assert [accuracy.num_correct for accuracy in accuracies] == [0, 0, 0]


def test_counts_by_constraint_add_up() -> None:
    tasks = held_out(150, 2)
    scores = score_answers(["an answer about nothing"] * 150, tasks)
    parts, rows = (scores.instruction_accuracy, scores.copy_accuracy), scores.by_constraint.values()
    assert sum(row.total for row in rows) == sum(part.total for part in parts)
    assert sum(row.num_correct for row in rows) == sum(part.num_correct for part in parts)
    assert scores.topic_mentioned.total == sum(task.topic is not None for task in tasks)


def test_answers_and_tasks_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="shorter"):
        score_answers(["one"], TASKS)


def test_baselines_use_nothing_but_the_prompt() -> None:
    baselines = trivial_baselines(TASKS)
    assert baselines["constant sentence"] == [CONSTANT_SENTENCE] * 4
    assert baselines["echoed prompt"] == ["Quote olives.", "Shout about ants.", "Say bye.", "Tell me about bees."]
    assert baselines["empty"] == [""] * 4
    assert all("Quote olives." in answer or "Quote" not in answer for answer in baselines["echo with filler"])
    assert score_answers(baselines["echo with filler"], TASKS).topic_mentioned.value == 1


def test_baselines_score_low_on_held_out_tasks() -> None:
    tasks = held_out(300, 0)
    accuracies = {
        name: score_answers(answers, tasks).instruction_accuracy.value
        for name, answers in trivial_baselines(tasks).items()
    }
    assert accuracies["empty"] == 0
    assert 0 < accuracies["constant sentence"] < 0.25
    assert accuracies["constant sentence"] < accuracies["echoed prompt"] < 0.45


def test_the_previous_answer_is_a_baseline_in_turn_two() -> None:
    tasks = held_out(40, 0, "multi-turn")
    assert trivial_baselines(tasks)["previous answer"] == [task.messages[1]["content"] for task in tasks]
    assert "previous answer" not in trivial_baselines(held_out(60, 0))  # only copy tasks have earlier turns


def test_sizes_of_splits() -> None:
    assert [len(tasks) for tasks in held_out_splits(10, 0, BASIC_CONSTRAINTS).values()] == [
        10,
        *[3] * (len(SPLITS) - 1),
    ]
    assert {len(tasks) for tasks in held_out_splits(10, 0, BASIC_CONSTRAINTS, per_split=4).values()} == {4}


def test_a_model_is_measured(chat_model: RunChatModel) -> None:
    splits = {"first": EXAMPLES, "second": EXAMPLES[:2]}
    scores_by_split = json.loads(json.dumps(measure_instruction_following(chat_model, splits, max_new_tokens=4)))
    assert scores_by_split["second"]["samples"] == scores_by_split["first"]["samples"][:2]
    scores = scores_by_split["first"]
    samples = scores["samples"]
    assert [sample["messages"][0]["content"] for sample in samples] == [task.messages[0]["content"] for task in TASKS]
    answers = [sample["messages"][-1]["content"] for sample in samples]
    assert all(sample["messages"][-1]["role"] == "assistant" for sample in samples)
    assert scores["instruction_accuracy"] == score_answers(answers, TASKS).instruction_accuracy.value
    assert scores["topic_mentioned"] == score_answers(answers, TASKS).topic_mentioned.value
    assert scores["baselines"]["echoed prompt"]["topic_mentioned"] == 1
    assert scores["baselines"]["echoed prompt"]["prompt_copy"] == 1
    assert "echoed prompt" in scores["not_significantly_above"]
    assert scores["reference_prompt_copy"] == pytest.approx((0 + 1 / 2 + 1 / 1 + 2 / 3) / 4)
    assert scores["by_constraint"]["no commas"]["total"] == 1
    assert scores["truncated"] == 1


def test_bits_per_byte_of_a_uniform_model(tiny_model: ModelConfig) -> None:
    tokenizer = train_tokenizer(
        [task.messages[0]["content"] for task in held_out(200, 5)], tiny_model.vocab_size, "qwen2"
    )
    model = KeyLM(tiny_model).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    expected = len(tokenizer.encode("ant")) * math.log2(tiny_model.vocab_size) / 3
    assert plain_bits_per_byte(model, tokenizer, ["ant", ""]) == pytest.approx(expected)
    assert plain_bits_per_byte(model, tokenizer, [""]) == 0
