import json
import math

import pytest
import torch
from helpers.tiny_run import tiny_run

from keylm.evaluate.instructions import CONSTANT_SENTENCE, measure, print_scores, score, splits, trivial_baselines
from keylm.evaluate.run_model import RunChatModel, bits_per_byte, run_chat_model
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
def speaker(tmp_path_factory: pytest.TempPathFactory) -> RunChatModel:
    return run_chat_model(tiny_run(tmp_path_factory.mktemp("speaker") / "run"), "sft")


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
    nulls = trivial_baselines(TASKS)
    assert nulls["constant sentence"] == [CONSTANT_SENTENCE] * 4
    assert nulls["echoed prompt"] == ["Quote olives.", "Shout about ants.", "Say bye.", "Tell me about bees."]
    assert nulls["empty"] == [""] * 4
    assert all("Quote olives." in answer or "Quote" not in answer for answer in nulls["echo with filler"])
    assert score(nulls["echo with filler"], TASKS).on_topic.share == 1


def test_null_answers_score_low_on_held_out_tasks() -> None:
    tasks = held_out(300, 0)
    followed = {name: score(answers, tasks).followed.share for name, answers in trivial_baselines(tasks).items()}
    assert followed["empty"] == 0
    assert 0 < followed["constant sentence"] < 0.25
    assert followed["constant sentence"] < followed["echoed prompt"] < 0.45


def test_an_answer_before_is_a_null_answer_where_there_is_one() -> None:
    tasks = held_out(40, 0, "multi-turn")
    assert trivial_baselines(tasks)["answer before"] == [task.messages[1]["content"] for task in tasks]
    assert "answer before" not in trivial_baselines(held_out(60, 0))  # copying games have turns, requests have none


def test_every_split_has_a_quarter_of_the_headline_or_as_many_as_are_asked_for() -> None:
    assert [len(tasks) for tasks in splits(10, 0, BASIC_CONSTRAINTS).values()] == [10, *[3] * (len(SPLITS) - 1)]
    assert {len(tasks) for tasks in splits(10, 0, BASIC_CONSTRAINTS, each=4).values()} == {4}


def test_the_table_says_what_is_within_noise(speaker: RunChatModel, capsys: pytest.CaptureFixture[str]) -> None:
    print_scores({"new kinds": measure(speaker, EXAMPLES, max_new_tokens=4)})
    shown = " ".join(capsys.readouterr().err.split())
    assert "new kinds 3 " in shown
    assert "within noise of" in shown


def test_a_model_is_measured(speaker: RunChatModel) -> None:
    facts = json.loads(json.dumps(measure(speaker, EXAMPLES, max_new_tokens=4)))
    samples = facts["samples"]
    assert [sample["messages"][0]["content"] for sample in samples] == [task.messages[0]["content"] for task in TASKS]
    answers = [sample["messages"][-1]["content"] for sample in samples]
    assert all(sample["messages"][-1]["role"] == "assistant" for sample in samples)
    assert facts["followed"] == score(answers, TASKS).followed.share
    assert facts["on_topic"] == score(answers, TASKS).on_topic.share
    assert facts["null_answers"]["echoed prompt"]["on_topic"] == 1
    assert facts["null_answers"]["echoed prompt"]["echoed"] == 1
    assert "echoed prompt" in facts["within_noise_of"]
    assert facts["echoed_by_examples"] == pytest.approx((0 + 1 / 2 + 1 / 1 + 2 / 3) / 4)
    assert facts["by_kind"]["no commas"]["of"] == 1
    assert facts["unfinished"] == 1


def test_where_every_token_is_equally_likely_bits_are_counted_by_hand(tiny_model: ModelConfig) -> None:
    tokenizer = train_tokenizer(
        [task.messages[0]["content"] for task in held_out(200, 5)], tiny_model.vocab_size, "qwen2"
    )
    model = KeyLM(tiny_model).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    expected = len(tokenizer.encode("ant")) * math.log2(tiny_model.vocab_size) / 3
    assert bits_per_byte(model, tokenizer, ["ant", ""]) == pytest.approx(expected)
    assert bits_per_byte(model, tokenizer, [""]) == 0
