"""Rows as documents: filters, a system's message apart, and trees of messages against another way to walk them."""

import random
from dataclasses import replace

import pytest

from keylm.common.documents import Document
from keylm.common.errors import UserError
from keylm.data.sources.progress import ReadProgress
from keylm.data.sources.rows import Row, RowFormat, columns_to_read, documents_of_rows

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]


def read(values, **settings):
    rows = [Row(value, f"row {number}", number) for number, value in enumerate(values, start=1)]
    return list(documents_of_rows(rows, RowFormat(**settings), ReadProgress()))


def test_rows_are_kept_and_dropped_by_their_columns():
    values = [
        {"text": text, "language": language, "score": score, "bad": bad}
        for text, language, score, bad in [
            ("one", "en", 3, False),
            ("two", "de", 3, False),
            ("three", "en", 2, False),
            ("four", "en", 3, True),
            ("[deleted]", "en", 3, False),
            ("five", "en", 3, False),
        ]
    ]
    kept = read(
        values,
        include_rows={"language": "en", "score": 3, "bad": False},
        exclude_rows={"text": ["[deleted]", "[removed]"]},
    )
    assert kept == [(Document(text="one"), 1), (Document(text="five"), 6)]


def test_a_filter_without_its_column_is_one_sentence():
    with pytest.raises(UserError, match=r"^row 1: there is no column `language` among text, lang$"):
        read([{"text": "one", "lang": "en"}], include_rows={"language": "en"})


@pytest.mark.parametrize(
    ("instructions", "messages", "first"),
    [
        ("Be brief.", TALK, "Be brief."),
        ("", TALK, None),
        (None, TALK, None),
        ("Be brief.", [{"role": "system", "content": "Be long."}, *TALK], "Be long."),
    ],
)
def test_a_system_message_of_its_own_column_goes_first(instructions, messages, first):
    row = {"messages": messages, "more": {"instructions": instructions}}
    ((document, _),) = read([row], system_column="more.instructions")
    system = [turn["content"] for turn in document.messages if turn["role"] == "system"]
    assert system == ([first] if first else [])
    assert document.messages[-2:] == tuple(TALK)


def test_a_message_that_is_null_says_nothing():
    ((document, _),) = read([{"messages": [{"role": "user", "content": None}]}])
    assert document.messages == ({"role": "user", "content": ""},)


def test_the_columns_are_the_needed_ones():
    row_format = RowFormat(include_rows={"language": "en"}, exclude_rows={"text": ["x"]}, system_column="a.b")
    assert columns_to_read(row_format, ["id", "text", "language", "a"], "file") == ["text", "language", "a.b"]
    with pytest.raises(UserError, match=r"file: there is no column `message_tree_id` among text, language"):
        columns_to_read(replace(row_format, message_trees=True), ["text", "language"], "file")


def grow(generator, tree, parent=None, depth=0):
    """A random tree of messages, as nested replies from the best to the worst, and its rows in any order."""
    name = f"{tree}-{generator.getrandbits(40)}"
    role = ("prompter", "assistant")[depth % 2]
    message = {
        "message_tree_id": tree,
        "message_id": name,
        "parent_id": parent,
        "role": role,
        "text": name,
        "rank": None,
    }
    replies = [
        grow(generator, tree, name, depth + 1) for _ in range(generator.choice([0, 1, 1, 2, 3]) if depth < 7 else 0)
    ]
    for rank, (reply, _, _) in enumerate(replies):
        reply["rank"] = rank
    below = [row for _, _, rows_below in replies for row in rows_below]
    return message, [(reply, nested) for reply, nested, _ in replies], [message, *below]


def first_replies(message, replies):
    while True:
        yield message
        if not replies:
            return
        message, replies = replies[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_tree_gives_its_best_path_in_any_row_order(seed):
    generator = random.Random(seed)
    trees = [grow(generator, f"tree{number}") for number in range(30)]
    expected = []
    for message, replies, _ in trees:
        path = list(first_replies(message, replies))
        path = path[: len(path) // 2 * 2]
        roles = {"prompter": "user", "assistant": "assistant"}
        if path:
            expected.append([{"role": roles[turn["role"]], "content": turn["text"]} for turn in path])
    values = [row for _, _, below in trees for row in below]
    generator.shuffle(values)
    conversations = [list(document.messages) for document, _ in read(values, message_trees=True)]
    assert sorted(conversations, key=str) == sorted(expected, key=str)
    assert len(expected) > 5


def test_a_role_that_no_tree_has_is_one_sentence():
    message, _, _ = grow(random.Random(0), "tree")
    with pytest.raises(UserError, match=r"message tree-\d+: the role 'robot' is not one of prompter, assistant"):
        read([{**message, "role": "robot"}], message_trees=True)
