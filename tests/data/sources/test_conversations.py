"""The forms in which people keep conversations, read from rows of JSON and of parquet."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from keylm.common.documents import Document
from keylm.common.errors import UserError
from keylm.data.sources import conversations
from keylm.data.sources.files import read_files
from keylm.data.sources.progress import ReadProgress
from keylm.recipe.sources import FilesConfig

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
SYSTEM = {"role": "system", "content": "Be brief."}
FORMS = {
    "messages": {"messages": TALK},
    "parts": {"messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in TALK]},
    "null in unused keys": {"messages": [{**turn, "from": None, "value": None, "tool_calls": None} for turn in TALK]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
    "sharegpt in messages": {"messages": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
    "conversation": {"conversation": TALK},
    "alpaca": {"instruction": "Hi", "input": "", "output": "Ho"},
    "dolly": {"instruction": "Hi", "context": "", "response": "Ho", "category": "open_qa"},
    "prompt and completion": {"prompt": "Hi", "completion": "Ho"},
    "prompt and response": {"prompt": "Hi", "response": "Ho"},
    "lists of messages": {"prompt": TALK[:1], "completion": TALK[1:]},
    "null in role": {"conversations": [{"role": None, "from": "human", "value": "Hi"}, TALK[1]]},
    "other names of roles": {"messages": [{"role": "Human", "content": "Hi"}, {"role": "MODEL", "content": "Ho"}]},
}


def read(folder, rows, prefer_messages=False, suffix="jsonl"):
    """The documents of the rows, and the reasons for those that were left out."""
    path, reasons = folder / f"rows.{suffix}", []
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    progress = ReadProgress(skip=lambda reason, sample: reasons.append(reason))
    source = FilesConfig(name="mine", path=str(path))
    return list(read_files(source, progress, prefer_messages=prefer_messages)), reasons


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_conversation(tmp_path, form, suffix):
    assert read(tmp_path, [FORMS[form]], suffix=suffix) == ([Document(messages=tuple(TALK))], [])


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_alpaca_with_all_its_columns(tmp_path, suffix):
    row = {"instruction": "Add.", "input": "1 and 2", "output": "3", "system": "Be brief.", "history": [["Hi", "Ho"]]}
    request, answer = {"role": "user", "content": "Add.\n\n1 and 2"}, {"role": "assistant", "content": "3"}
    assert read(tmp_path, [row], suffix=suffix)[0] == [Document(messages=(SYSTEM, *TALK, request, answer))]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("form", ["messages", "sharegpt", "alpaca"])
def test_a_text_beside_a_conversation(tmp_path, form, suffix):
    row = {"text": "rendered", **FORMS[form]}
    assert read(tmp_path, [row], suffix=suffix)[0] == [Document(text="rendered")]
    assert read(tmp_path, [row], prefer_messages=True, suffix=suffix)[0] == [Document(messages=tuple(TALK))]


@pytest.mark.parametrize("text", ["", None])
def test_a_text_of_nothing_hides_no_conversation(tmp_path, text):
    assert read(tmp_path, [{"text": text, "messages": TALK}])[0] == [Document(messages=tuple(TALK))]


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"role": "tool", "content": "42"}, conversations.TOOL_CALL),
        ({"from": "function_call", "value": "f()"}, conversations.TOOL_CALL),
        ({"from": "observation", "value": "42"}, conversations.TOOL_CALL),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}, conversations.TOOL_CALL),
        ({"role": "assistant", "tool_calls": [{"id": 1}]}, conversations.TOOL_CALL),
        ({"role": "robot", "content": "Hi"}, conversations.OTHER_ROLE),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, conversations.NOT_ONLY_TEXT),
        ({"role": "user", "content": [3]}, conversations.NOT_ONLY_TEXT),
    ],
)
def test_what_cannot_be_learned_is_left_out_and_counted(tmp_path, turn, reason):
    rows = [{"messages": TALK}, {"messages": [*TALK, turn]}, {"messages": TALK}]
    assert read(tmp_path, rows) == ([Document(messages=tuple(TALK))] * 2, [reason])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"question": "Hi"}, r"name the right one .* or use one of the forms .*conversations, .*prompt and completion"),
        ({"prompt": "Hi", "completion": 3}, "line 1, `completion` is neither text nor a list of messages but int"),
        ({"conversations": ["Hi"]}, "`conversations`, message 1: a message must be an object"),
        ({"instruction": "a", "output": "b", "history": [["Hi"]]}, "`history` is not a list of pairs"),
    ],
)
def test_what_is_of_no_form_is_one_sentence(tmp_path, row, sentence):
    with pytest.raises(UserError, match=sentence):
        read(tmp_path, [row])
