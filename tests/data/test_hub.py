"""Hub data sets against a small server that answers as the hub does, and against no server at all.

The hub's libraries read their settings at import, so that every case runs in a process of its own.
"""

import io
import json
import os
import subprocess
import sys

import hub_server
import pyarrow
import pyarrow.parquet
import pytest

READ = """
import json, sys
from keylm.data import sources
from keylm.data.reading import Reading
from keylm.errors import UserError
from keylm.recipe import Hub

def outcome(settings):
    reading = Reading()
    try:
        documents = list(sources.read(Hub(name="mine", **settings), 0, reading))
    except UserError as error:
        return {"error": str(error)}
    return {"documents": [[document.text, document.messages] for document in documents], "facts": reading.facts}

print(json.dumps([outcome(settings) for settings in json.loads(sys.argv[1])]))
"""

CARD = b"""---
configs:
- config_name: en
  data_files:
  - {split: train, path: en/train-*}
  - {split: test, path: en/test-*}
- config_name: talk
  data_files: talk/*.parquet
---
A data set.
"""
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]


def read_all(settings, folder, **environment):
    """What becomes of reading each of these sources, in one process."""
    variables = {**os.environ, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", **environment}
    command = [sys.executable, "-c", READ, json.dumps(settings)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def parquet(rows):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


REPOSITORY = {
    "README.md": CARD,
    "en/train-00000-of-00002.parquet": parquet([{"text": "one"}, {"text": "two"}]),
    "en/train-00001-of-00002.parquet": parquet([{"text": "three"}]),
    "en/test-00000-of-00001.parquet": parquet([{"text": "four"}]),
    "talk/0.parquet": parquet([{"conversation": TALK}]),
    "notes/readme.txt": b"not part of any configuration",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    cases = {
        "train": {"dataset": "some/data", "config": "en"},
        "test": {"dataset": "some/data", "config": "en", "split": "test"},
        "talk": {"dataset": "some/data", "config": "talk", "messages_column": "conversation"},
        "limited": {"dataset": "some/data", "config": "en", "max_documents": 1},
        "no column": {"dataset": "some/data", "config": "talk"},
        "no split": {"dataset": "some/data", "config": "en", "split": "dev"},
        "no config": {"dataset": "some/data", "config": "de"},
        "no revision": {"dataset": "some/data", "config": "en", "revision": "v9"},
        "no dataset": {"dataset": "some/other", "config": "en"},
        "gated": {"dataset": "some/gated", "config": "en"},
    }
    repositories = {"some/data": REPOSITORY, "some/gated": REPOSITORY}
    with hub_server.serve(repositories, gated=frozenset({"some/gated"})) as endpoint:
        found = read_all(list(cases.values()), tmp_path_factory.mktemp("hub"), HF_ENDPOINT=endpoint)
    return dict(zip(cases, found, strict=True))


def test_a_split_is_read_file_by_file_at_a_pinned_commit(outcomes):
    assert outcomes["train"] == {
        "documents": [["one", None], ["two", None], ["three", None]],
        "facts": {"commit": hub_server.COMMIT},
    }
    assert outcomes["test"]["documents"] == [["four", None]]
    assert outcomes["limited"]["documents"] == [["one", None]]


def test_a_column_of_conversations_is_read(outcomes):
    assert outcomes["talk"]["documents"] == [[None, TALK]]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no column", "there is no `text` and no `messages` among conversation"),
        ("no split", "some/data has no split `dev`; it has train, test"),
        ("no config", "BuilderConfig 'de' not found. Available: ['en', 'talk']"),
        ("no revision", "some/data has no revision `v9`"),
        ("no dataset", "the hub has no data set some/other, or it is private: check `dataset` of the source `mine`"),
        ("gated", "some/gated is gated: accept its terms on https://huggingface.co/datasets/some/gated, then log in"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(outcomes, case, words):
    assert words in outcomes[case]["error"]
    assert "\n" not in outcomes[case]["error"]


@pytest.mark.parametrize(
    "environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}], ids=["no server", "offline"]
)
def test_without_a_network_the_sentence_says_what_to_do(tmp_path, environment):
    (outcome,) = read_all([{"dataset": "some/data"}], tmp_path, **environment)
    assert outcome["error"].startswith("cannot get the data set some/data from the hub (")
    assert outcome["error"].endswith("or replace the source `mine` by local files")
    assert "\n" not in outcome["error"]
