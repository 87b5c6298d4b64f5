import json

import pytest
import torch

from keylm import recipe
from keylm.data.instructions import Task, held_out
from keylm.data.instructions.constraints import EndPhrase, NoCommas, Quotation, Uppercase
from keylm.data.instructions.task import ask
from keylm.evaluate.instructions import CONSTANT_SENTENCE, echoed, measure, measure_splits, null_answers, score
from keylm.model import KeyLM
from keylm.tokenizer import Tokenizer, train

TASKS = [
    Task(ask("Quote olives."), "olives", (Quotation(), NoCommas())),
    Task(ask("Shout about ants."), "ants", (Uppercase(),)),
    Task(ask("Say bye."), None, (EndPhrase("Bye."),)),
    Task(ask("Tell me about bees."), "bees"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [task.messages[0]["content"] for task in held_out(200, 5)]
    return train(texts, vocab_size=300, pre_tokenizer="qwen2")


def test_a_score_by_hand() -> None:
    scored = score(['"Olives, please"', "ANTS", "Bye. Or not.", "Wasps"], TASKS)
    assert (scored.followed.hits, scored.followed.total) == (2, 3)
    assert (scored.copied.hits, scored.copied.total) == (0, 1)
    assert (scored.prompts_followed.hits, scored.prompts_followed.total) == (1, 2)
    assert (scored.on_topic.hits, scored.on_topic.total) == (2, 3)
    assert {kind: (row.hits, row.total) for kind, row in scored.by_kind.items()} == {
        "quotation marks": (1, 1),
        "no commas": (0, 1),
        "all capitals": (1, 1),
        "end phrase": (0, 1),
    }


def test_empty_answers_follow_nothing() -> None:
    scored = score(["", " ", "\n", ""], TASKS)
    assert scored.followed.hits == scored.prompts_followed.hits == scored.on_topic.hits == 0


def test_the_counts_of_kinds_add_up() -> None:
    tasks = held_out(150, 2)
    scored = score(["an answer about nothing"] * 150, tasks)
    assert sum(row.total for row in scored.by_kind.values()) == scored.followed.total + scored.copied.total
    assert sum(row.hits for row in scored.by_kind.values()) == scored.followed.hits + scored.copied.hits
    assert scored.on_topic.total == sum(task.topic is not None for task in tasks)


def test_answers_and_tasks_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="shorter"):
        score(["one"], TASKS)


def test_null_answers_know_nothing_but_the_prompt() -> None:
    nulls = null_answers(TASKS)
    assert nulls["constant sentence"] == [CONSTANT_SENTENCE] * 4
    assert nulls["echoed prompt"] == ["Quote olives.", "Shout about ants.", "Say bye.", "Tell me about bees."]
    assert nulls["empty"] == [""] * 4
    assert all("Quote olives." in answer or "Quote" not in answer for answer in nulls["echo with filler"])
    assert score(nulls["echo with filler"], TASKS).on_topic.share == 1


def test_null_answers_score_low_on_held_out_tasks() -> None:
    tasks = held_out(300, 0)
    followed = {name: score(answers, tasks).followed.share for name, answers in null_answers(tasks).items()}
    assert followed["empty"] == 0
    assert 0 < followed["constant sentence"] < 0.25
    assert followed["constant sentence"] < followed["echoed prompt"] < 0.45


def test_echo_is_the_longest_common_run_of_words() -> None:
    task = Task(ask("Tell me about old green bees today."), "bees")
    assert echoed("Some old green bees sing.", task) == 3 / 5
    assert echoed("Tell me about old green bees today.", task) == 1
    assert echoed("", task) == echoed("Wasps fly.", task) == 0
    scored = score(["Some old green bees sing.", ""], [task, task])
    assert (scored.echoed, scored.words) == (0.3, 2.5)


def test_a_model_is_measured(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = KeyLM(
        recipe.Model(
            vocab_size=tokenizer.vocab_size,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            intermediate_size=32,
            max_position_embeddings=512,
        )
    ).eval()
    facts = json.loads(json.dumps(measure(model, tokenizer, TASKS, max_new_tokens=4)))
    samples = facts["samples"]
    assert [sample["messages"][0]["content"] for sample in samples] == [task.messages[0]["content"] for task in TASKS]
    answers = [sample["messages"][-1]["content"] for sample in samples]
    assert all(sample["messages"][-1]["role"] == "assistant" for sample in samples)
    assert facts["followed"] == score(answers, TASKS).followed.share
    assert facts["on_topic"] == score(answers, TASKS).on_topic.share
    assert facts["null_answers"]["echoed prompt"]["on_topic"] == 1
    assert "echoed prompt" in facts["within_noise_of"]
    splits = measure_splits(model, tokenizer, {"new kinds": TASKS[:1], "new topics": TASKS[1:]}, max_new_tokens=4)
    assert [row["instructions"] for row in splits.values()] == [2, 1]
    assert facts["by_kind"]["no commas"]["of"] == 1
