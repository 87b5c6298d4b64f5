import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.inference.answers import MIN_LOOP_REPEATS, Answer, describe_answers, loops, prompt_copy, topic_match
from keylm.instructions.generate import generate_conversations

WORDS = st.lists(st.sampled_from(["sea", "lake", "river"]), min_size=1, max_size=4)


def test_prompt_copy_is_the_longest_common_run() -> None:
    question = "Tell me about old green bees today."
    assert prompt_copy("Some old green bees sing.", question) == 3 / 5
    assert prompt_copy(question, question) == 1
    assert prompt_copy("", question) == prompt_copy("Wasps fly.", question) == 0


@given(WORDS, st.integers(1, 2 * MIN_LOOP_REPEATS))
def test_a_phrase_repeated_often_is_a_loop(stretch: list[str], times: int) -> None:
    before = "Once upon a time there was something to be said. "
    is_one_word = len(set(stretch)) == 1
    text = before + " ".join(stretch * times)
    assert loops(text) == (times * (len(stretch) if is_one_word else 1) >= MIN_LOOP_REPEATS) or _hidden_period(
        stretch, times
    )


def _hidden_period(stretch: list[str], times: int) -> bool:
    """Whether the stretch repeats itself inside, such as `sea lake sea lake`."""
    half = len(stretch) // 2
    return len(stretch) % 2 == 0 and stretch[:half] == stretch[half:] and 2 * times >= MIN_LOOP_REPEATS


def test_a_loop_may_begin_and_break_off_anywhere() -> None:
    assert loops("I like it. " + "It is so. " * MIN_LOOP_REPEATS + "It is")
    assert not loops("I like it. " + "It is so. " * (MIN_LOOP_REPEATS - 1) + "It is")
    assert not loops("")


def test_no_training_answer_loops() -> None:
    answers = [
        message["content"]
        for talk in generate_conversations(3000, 0)
        for message in talk
        if message["role"] == "assistant"
    ]
    assert not [answer for answer in answers if loops(answer)]


def test_an_answer_matches_the_prompt_it_is_about() -> None:
    assert topic_match("Herons live near rivers.", "Tell me about herons.", "Tell me about engines.") == 1
    assert topic_match("Herons live near rivers.", "Tell me about engines.", "Tell me about herons.") == 0
    assert topic_match("Yes.", "Tell me about engines.", "Tell me about herons.") == 0.5


def test_answers_are_described_by_hand() -> None:
    answers = [Answer("Herons fish."), Answer("no " * 7, ended=False), Answer("")]
    questions = ["What are herons?", "Talk about boats.", "Herons?"]
    assert describe_answers(answers, questions) == pytest.approx(
        {"truncated": 1 / 3, "looping": 1 / 3, "prompt_copy": 0, "num_words": 3, "topic_match": (1 + 0.5 + 0.5) / 3}
    )
    assert set(describe_answers([], []).values()) == {0.0}
