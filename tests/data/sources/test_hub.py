"""Hub data sets, with a small server that answers and fails as the hub does, and without any server.

The hub's libraries read their settings at import, so sources are read in processes of their own, many cases in each.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from helpers import hub_server
from helpers.hub_reading import parquet, read_all, start_reading
from helpers.hub_server import COMMIT, Fault

CARD = b"""---
configs:
- config_name: en
  data_files:
  - {split: train, path: en/train-*}
  - {split: test, path: en/test-*}
- config_name: talk
  data_files: talk/*.parquet
- config_name: lines
  data_files: lines/*.jsonl
---
A data set.
"""
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]


def long_texts(number):
    """Texts of 150 kB that do not compress well."""
    letters = random.Random(number)
    return ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz ", k=1500)) for _ in range(100)]


REPOSITORY = {
    "README.md": CARD,
    "en/train-00000-of-00002.parquet": parquet([{"text": "one"}, {"text": "two"}]),
    "en/train-00001-of-00002.parquet": parquet([{"text": "three"}]),
    "en/test-00000-of-00001.parquet": parquet([{"text": "four"}]),
    "talk/0.parquet": parquet([{"conversation": TALK}]),
    "lines/0.jsonl": b'{"text": "five"}\n{"text": "six"}\n',
    "notes/readme.txt": b"not part of any configuration",
}
FIRST, SECOND_FILE = [["one", None], ["two", None]], [["three", None]]
TEXTS = [long_texts(number) for number in range(3)]
LARGE = {f"train-{n:05d}-of-00003.parquet": parquet([{"text": text} for text in TEXTS[n]]) for n in range(3)}
SECOND = "train-00001-of-00003.parquet"
ALL_TEXTS = sorted([text, None] for texts in TEXTS for text in texts)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    cases = {
        "train": {"dataset": "some/data", "config": "en"},
        "test": {"dataset": "some/data", "config": "en", "split": "test"},
        "all": {"dataset": "some/data", "config": "en", "split": "*"},
        "talk": {"dataset": "some/data", "config": "talk", "messages_column": "conversation"},
        "lines": {"dataset": "some/data", "config": "lines"},
        "first": {"dataset": "some/data", "config": "en", "limit": 1},
        "many": {"dataset": "some/many", "split": "*"},
        **{f"slice {index}": {"dataset": "some/many", "split": "*", "slice": [index, 3]} for index in range(3)},
        "no column": {"dataset": "some/data", "config": "en", "text_column": "body"},
        "no filter": {"dataset": "some/data", "config": "en", "include_rows": {"language": "English"}},
        "no split": {"dataset": "some/data", "config": "en", "split": "dev"},
        "no config": {"dataset": "some/data", "config": "de"},
        "no revision": {"dataset": "some/data", "config": "en", "revision": "v9"},
        "no dataset": {"dataset": "some/other", "config": "en"},
        "gated": {"dataset": "some/gated", "config": "en"},
        "gated later": {"dataset": "some/later", "config": "en"},
        "gone": {"dataset": "some/gone", "config": "en"},
    }
    repositories = {f"some/{name}": REPOSITORY for name in ("data", "gated", "later", "gone")}
    repositories["some/many"] = {
        f"data/{split}-{n:05d}-of-00010.parquet": parquet([{"text": f"{split} {n}"}])
        for split in "ab"
        for n in range(10)
    }
    faults = {
        "some/later/resolve/" + COMMIT + "/en": [Fault(status=403, headers={"X-Error-Code": "GatedRepo"})],
        "some/gone/resolve/" + COMMIT + "/en": [Fault(status=404, headers={"X-Error-Code": "RevisionNotFound"})],
    }
    with hub_server.serve(repositories, frozenset({"some/gated"}), faults) as server:
        results, _ = read_all(list(cases.values()), tmp_path_factory.mktemp("hub"), HF_ENDPOINT=server.endpoint)
    return dict(zip(cases, results, strict=True))


def test_a_split_is_read_file_by_file_at_a_pinned_commit(outcomes):
    assert outcomes["train"]["metadata"] == {"commit": COMMIT}
    assert outcomes["train"]["fraction"] == 1
    assert outcomes["train"]["documents"] in ([*FIRST, *SECOND_FILE], [*SECOND_FILE, *FIRST])
    assert outcomes["test"]["documents"] == [["four", None]]
    assert outcomes["first"]["documents"] == outcomes["train"]["documents"][:1]


def test_all_splits_are_read(outcomes):
    assert sorted(outcomes["all"]["documents"]) == sorted([*FIRST, *SECOND_FILE, ["four", None]])


def test_the_first_files_are_a_sample_of_all_splits(outcomes):
    subreddits = [text.split()[0] for text, _ in outcomes["many"]["documents"]]
    assert sorted(subreddits) == ["a"] * 10 + ["b"] * 10
    assert 2 <= subreddits[:10].count("a") <= 8


def test_the_slices_of_all_tasks_are_the_whole(outcomes):
    slices = [outcomes[f"slice {index}"]["documents"] for index in range(3)]
    assert [len(documents) for documents in slices] == [6, 7, 7]
    assert [document for documents in slices for document in documents] == outcomes["many"]["documents"]


def test_a_column_of_conversations_is_read(outcomes):
    assert outcomes["talk"]["documents"] == [[None, TALK]]


def test_a_file_outside_of_large_file_storage_is_read(outcomes):
    assert outcomes["lines"]["documents"] == [["five", None], ["six", None]]


@pytest.mark.parametrize(
    ("case", "missing", "words"),
    [
        ("no column", False, "there is no `body` and no `messages` among text"),
        ("no filter", False, "there is no column `language` among text"),
        ("no split", False, "some/data has no split `dev`; it has train, test"),
        ("no config", False, "BuilderConfig 'de' not found. Available: ['en', 'talk', 'lines']"),
        ("no revision", True, "some/data has no revision `v9`"),
        ("no dataset", True, "the hub has no data set some/other, or it is private: check `dataset` of the source"),
        ("gated", True, "some/gated is gated: accept its terms on https://huggingface.co/datasets/some/gated, then"),
        ("gated later", True, "some/later is gated: accept its terms on https://huggingface.co/datasets/some/later"),
        ("gone", True, "cannot get the data set some/gone from the hub (404 for /datasets/some/gone/resolve/"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(outcomes, case, missing, words):
    assert words in outcomes[case]["error"]
    assert "\n" not in outcomes[case]["error"]
    assert outcomes[case]["missing"] == missing


BAD_DAYS = {
    "busy, asks for a second": [Fault(status=429, headers={"Retry-After": "1"})],
    "busy, by the draft's header": [Fault(status=429, headers={"RateLimit": '"resolvers";r=0;t=1'})],
    "failing": [Fault(status=500), Fault(status=503), Fault(status=502)],
    "cut at once": [Fault(cut=0)] * 3,
    "cut in the middle": [Fault(cut=20_000), Fault(cut=30_000), Fault(cut=7)],
    "cut again and again": [Fault(cut=10_000)] * 8,
    "short": [Fault(cut=50_000, honest=False)],
    "wrong bytes": [Fault(wrong=True), Fault(wrong=True)],
    "wrong bytes, then cut": [Fault(wrong=True, cut=40_000), Fault(cut=100)],
    "silent": [Fault(cut=30_000, stall=2)],
    "slow": [Fault(rate=50_000)],
}
BAD_LISTINGS = {
    "revision": [Fault(status=503), Fault(status=429, headers={"Retry-After": "0"})],
    "tree": [Fault(status=500)],
    "auth-check": [Fault(cut=0, status=502)],
}
HOPELESS = {
    "never right": [Fault(wrong=True)] * 6,
    "never whole": [Fault(cut=0, honest=False)] * 6,
    "never there": [Fault(status=503)] * 6,
}


@pytest.fixture(scope="module")
def bad_days(tmp_path_factory):
    names = ["a good day", *BAD_DAYS, *BAD_LISTINGS, *HOPELESS]
    datasets = {name: f"bad/{number}" for number, name in enumerate(names)}
    faults = {f"{datasets[name]}/resolve/{COMMIT}/{SECOND}": list(BAD_DAYS[name]) for name in BAD_DAYS}
    faults |= {f"{datasets[name]}/resolve/{COMMIT}/{SECOND}": list(HOPELESS[name]) for name in HOPELESS}
    faults |= {f"{datasets[name]}/{name}": list(BAD_LISTINGS[name]) for name in BAD_LISTINGS}
    cases = [{"dataset": dataset} for dataset in datasets.values()]
    with hub_server.serve(dict.fromkeys(datasets.values(), LARGE), faults=faults) as server:
        folder = tmp_path_factory.mktemp("bad")
        results, console = read_all(cases, folder, HF_ENDPOINT=server.endpoint, HF_HUB_DOWNLOAD_TIMEOUT="1")
        sent = {name: server.sent[f"{datasets[name]}/{SECOND}"] for name in names}
    left_over = [path for path, faults in server.faults.items() if faults]
    return dict(zip(names, results, strict=True)), sent, console, left_over


def test_a_good_day_gives_all_documents_once(bad_days):
    assert sorted(bad_days[0]["a good day"]["documents"]) == ALL_TEXTS
    assert bad_days[1]["a good day"] == [(0, len(LARGE[SECOND]))]


def test_everything_that_was_to_go_wrong_did(bad_days):
    assert bad_days[3] == []


@pytest.mark.parametrize("name", [*BAD_DAYS, *BAD_LISTINGS])
def test_a_bad_day_gives_the_documents_of_a_good_day(bad_days, name):
    assert bad_days[0][name] == bad_days[0]["a good day"]


def test_a_cut_transfer_goes_on_where_it_was(bad_days):
    size = len(LARGE[SECOND])
    sent = bad_days[1]["cut in the middle"]
    assert [start for start, _ in sent] == [0, 20_000, 50_000, 50_007]
    assert sum(count for _, count in sent) == size


def test_every_retry_is_one_line_on_the_console(bad_days):
    lines = [line for line in bad_days[2].splitlines() if line.startswith("hub: ")]
    assert lines.count("hub: 429, waits 1 s, try 2 of 6") == 2
    assert "hub: 500, waits 0.01 s, try 2 of 6" in lines
    assert "hub: 502, waits 0.04 s, try 4 of 6" in lines
    assert f"hub: {SECOND} ended after 50,000 of {len(LARGE[SECOND]):,} bytes, waits 0.01 s, then goes on" in lines
    assert f"hub: {SECOND} came with the wrong content, waits 0.02 s, try 3 of 6" in lines
    assert f"hub: {SECOND}, ReadTimeout, waits 0.01 s, then goes on" in lines


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("never right", f"{SECOND} came with the wrong content"),
        ("never whole", f"{SECOND} ended after 0 of"),
        ("never there", "503"),
    ],
)
def test_after_the_last_try_a_sentence(bad_days, name, words):
    outcome = bad_days[0][name]
    assert outcome["error"].startswith("cannot get the data set bad/")
    assert words in outcome["error"]
    assert outcome["missing"]


def test_a_killed_transfer_goes_on_and_no_file_comes_twice(tmp_path):
    slow = {f"resolve/{COMMIT}/{SECOND}": [Fault(rate=50_000)]}
    size = len(LARGE[SECOND])
    with hub_server.serve({"some/large": LARGE}, faults=slow) as server:
        killed = start_reading([{"dataset": "some/large"}], tmp_path, HF_ENDPOINT=server.endpoint)
        deadline = time.monotonic() + 60
        while sum(count for _, count in server.sent[f"some/large/{SECOND}"]) < size // 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        (outcome,), _ = read_all([{"dataset": "some/large"}], tmp_path, HF_ENDPOINT=server.endpoint)
        sent = {name: answers for name, answers in server.sent.items() if name.endswith(".parquet")}
    assert sorted(outcome["documents"]) == ALL_TEXTS
    assert [sent[f"some/large/{name}"] for name in LARGE if name != SECOND] == [
        [(0, len(data))] for name, data in LARGE.items() if name != SECOND
    ]
    (_, first_start), (start, rest) = sent[f"some/large/{SECOND}"]
    assert 0 < start <= first_start < size
    assert start + rest == size


def test_two_processes_at_once_share_one_transfer(tmp_path):
    with hub_server.serve({"some/large": LARGE}) as server:
        both = [start_reading([{"dataset": "some/large"}], tmp_path, HF_ENDPOINT=server.endpoint) for _ in range(2)]
        outputs = [process.communicate(timeout=120)[0] for process in both]
        sent = {name: answers for name, answers in server.sent.items() if name.endswith(".parquet")}
    assert outputs[0] == outputs[1]
    assert sorted(json.loads(outputs[0])[0]["documents"]) == ALL_TEXTS
    assert sent == {f"some/large/{name}": [(0, len(data))] for name, data in LARGE.items()}


def test_what_was_read_once_is_read_again_offline(tmp_path):
    case = {"dataset": "some/data", "config": "en"}
    with hub_server.serve({"some/data": REPOSITORY}) as server:
        (online,), _ = read_all([case], tmp_path, HF_ENDPOINT=server.endpoint)
    read = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    (snapshot,) = tmp_path.glob("hub/datasets--some--data/snapshots/*")
    (offline,), _ = read_all([case], tmp_path, **read)
    assert offline == online
    (snapshot / "en/train-00001-of-00002.parquet").unlink()
    outcomes, _ = read_all([case, {**case, "split": "test"}], tmp_path, **read)
    assert "offline, and en/train-00001-of-00002.parquet of some/data is not in the cache" in outcomes[0]["error"]
    assert "offline, and the list of files of some/data at `main` is not in the cache" in outcomes[1]["error"]
    assert all(outcome["missing"] and "run once without --offline" in outcome["error"] for outcome in outcomes)


def test_a_pinned_commit_uses_huggingface_hub_s_cache(tmp_path):
    case = {"dataset": "some/data", "config": "en", "revision": COMMIT}
    with hub_server.serve({"some/data": REPOSITORY}) as server:
        (online,), _ = read_all([case], tmp_path, HF_ENDPOINT=server.endpoint)
    (again,), _ = read_all([case], tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert again == online
    ask = (
        "from huggingface_hub import scan_cache_dir, try_to_load_from_cache\n"
        f"print(try_to_load_from_cache('some/data', 'en/train-00000-of-00002.parquet', revision='{COMMIT}', "
        "repo_type='dataset'))\n"
        "print([repo.repo_id for repo in scan_cache_dir().repos], scan_cache_dir().warnings)"
    )
    variables = {**os.environ, "HF_HOME": str(tmp_path)}
    seen = subprocess.run([sys.executable, "-c", ask], env=variables, capture_output=True, text=True, check=True)
    path, repositories = seen.stdout.splitlines()
    assert path.endswith(f"snapshots/{COMMIT}/en/train-00000-of-00002.parquet")
    assert repositories == "['some/data'] []"


def test_without_a_network_the_sentence_says_what_to_do(tmp_path):
    (outcome,), console = read_all([{"dataset": "some/data"}], tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert outcome["error"].startswith("cannot get the data set some/data from the hub (")
    assert outcome["error"].endswith("or replace the source `mine` by local files")
    assert "\n" not in outcome["error"]
    assert outcome["missing"]
    assert "try 6 of 6" in console
