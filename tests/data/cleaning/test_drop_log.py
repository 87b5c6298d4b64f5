"""Counts and samples of what was dropped, in memory and in their file."""

import json

from keylm.data.cleaning.drop_log import DropLog


def test_counts_all_and_keeps_the_beginnings_of_the_first(tmp_path):
    dropped = DropLog(num_samples=2)
    for number in range(4):
        dropped.add("too short", f"text {number}")
    dropped.add("not text", "1 2 3 " * 100)
    dropped.save(tmp_path / "dropped.json")
    assert json.loads((tmp_path / "dropped.json").read_text()) == {
        "counts": {"not text": 1, "too short": 4},
        "samples": {"not text": ["1 2 3 " * 50], "too short": ["text 0", "text 1"]},
    }


def test_logs_of_slices_add_up_in_order(tmp_path):
    whole, parts = DropLog(3), DropLog(3)
    for number, texts in enumerate((["a", "b"], ["c", "d"])):
        part = DropLog(3)
        for text in texts:
            part.add("duplicate", text)
            whole.add("duplicate", text)
        part.save(tmp_path / f"{number}.json")
        parts.add_saved(tmp_path / f"{number}.json")
    assert parts.to_dict() == whole.to_dict() == {"counts": {"duplicate": 4}, "samples": {"duplicate": ["a", "b", "c"]}}


def test_without_samples_there_are_counts():
    dropped = DropLog(num_samples=0)
    dropped.add("too short", "text")
    assert dropped.to_dict() == {"counts": {"too short": 1}, "samples": {"too short": []}}
