"""Trying again: how often, how long is waited, and what a server asks for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Event, Timer

import pytest

from keylm.data.sources.retries import Retries, TransientError, retry_after_seconds


class Flaky:
    """Fails in the given ways, then answers."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


def test_waits_double_up_to_a_limit_and_a_server_is_obeyed(capsys):
    asked = TransientError("429", wait_seconds=0.02)
    action = Flaky(*[TransientError("cut")] * 3, asked, TransientError("cut"))
    assert Retries(first_wait_seconds=0.001, longest_wait_seconds=0.003).call(action) == "answer"
    assert capsys.readouterr().err.splitlines() == [
        "hub: cut, waits 0.001 s, try 2 of 6",
        "hub: cut, waits 0.002 s, try 3 of 6",
        "hub: cut, waits 0.003 s, try 4 of 6",
        "hub: 429, waits 0.02 s, try 5 of 6",
        "hub: cut, waits 0.003 s, try 6 of 6",
    ]


def test_the_last_failure_is_raised():
    action = Flaky(*[TransientError(f"failure {number}") for number in range(9)])
    with pytest.raises(TransientError, match="failure 3"):
        Retries(tries=4, first_wait_seconds=0).call(action)
    assert action.calls == 4


def test_progress_does_not_count_but_does_not_forgive():
    progress, failure = TransientError("cut", progressed=True), TransientError("wrong")
    assert Retries(tries=2, first_wait_seconds=0).call(Flaky(*[progress] * 9)) == "answer"
    with pytest.raises(TransientError, match="wrong"):
        Retries(tries=2, first_wait_seconds=0).call(Flaky(progress, failure, progress, failure, progress))


def test_other_errors_are_not_tried_again():
    action = Flaky(ValueError("mine"))
    with pytest.raises(ValueError, match="mine"):
        Retries().call(action)
    assert action.calls == 1


def test_whoever_is_stopped_waits_no_longer():
    stopped = Event()
    Timer(0.05, stopped.set).start()
    with pytest.raises(TransientError, match="cut"):
        Retries(first_wait_seconds=3600, longest_wait_seconds=3600).call(Flaky(TransientError("cut")), stopped)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55),
        ({"retry-after": "3", "ratelimit": '"api";r=0;t=55'}, 3),
        ({}, None),
    ],
)
def test_what_a_server_asks_to_wait(headers, seconds):
    assert retry_after_seconds(headers) == seconds


def test_a_server_may_name_a_date():
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert retry_after_seconds({"retry-after": date}) == pytest.approx(3600, abs=5)
