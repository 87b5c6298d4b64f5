"""Personal data masked: mail addresses and public IP addresses as datatrove finds them, and phone numbers.

A replacement is always the same, so that a masked text does not depend on what was masked before it, and no
replacement is itself masked again into something else. Texts that cannot hold any of the three are told apart by one
search; in the others only the lines that can are looked at.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datatrove.pipeline.formatters import PIIFormatter

MAIL = "email@example.com"
IP = "192.0.2.1"
"""An address for documentation (RFC 5737), which nobody has."""
PHONE = "555-0100"
"""A number for fiction: 555-0100 to 555-0199 are given to nobody."""

_CANDIDATE = re.compile(
    r"""[@+0-9](?:                       # one set of first characters: three times as fast as three alternatives
        (?<=@) | (?<=\+)[0-9]
        | (?<=[0-9])(?:[0-9]{2}[-. ][0-9]{4} | \.[0-9]{1,3}\.[0-9])
    )""",
    re.VERBOSE,
)
"""What every mail address, phone number or IP address has in it."""

_NORTH_AMERICAN = re.compile(
    r"""(?<![\w.,/:$€£¥#+-])
    (?:\+?1[-. ]?)?                      # country code
    (?:\([2-9][0-9]{2}\)[ ]?|[2-9][0-9]{2}[-.])  # area code, in brackets or followed by a mark
    [2-9][0-9]{2}[-. ][0-9]{4}
    (?![-.,/]?[0-9]|\w)""",
    re.VERBOSE,
)
_INTERNATIONAL = re.compile(
    r"""(?<![\w+])
    \+[1-9][0-9]{0,2}                    # country code
    (?:[-. ]?(?:\([0-9]{1,4}\)|[0-9]{1,12})){1,6}
    (?![-.,/]?[0-9]|\w)""",
    re.VERBOSE,
)
_LEAST_DIGITS, _MOST_DIGITS = 10, 15
"""Digits of an international number: E.164 allows 15 at most; shorter numbers with a plus sign are mostly sums."""


def mask_personal_data(text: str) -> str:
    """The text with `MAIL`, `IP` and `PHONE` in the place of what looks like one of them.

    Phone numbers are those written with a plus sign and a country code, and North American ones with their area code
    in brackets or set off by a hyphen or a full stop. Bare rows of digits are left alone: they are dates, sums and
    book numbers more often.
    """
    if not _CANDIDATE.search(text):
        return text
    return "\n".join(_mask_line(line) if _CANDIDATE.search(line) else line for line in text.split("\n"))


def _mask_line(line: str) -> str:
    line = _INTERNATIONAL.sub(_mask_number, _NORTH_AMERICAN.sub(PHONE, line))
    return str(_formatter().format(line))


def _mask_number(match: re.Match[str]) -> str:
    digits = sum(map(str.isdigit, match[0]))
    return PHONE if _LEAST_DIGITS <= digits <= _MOST_DIGITS else match[0]


@cache
def _formatter() -> PIIFormatter:
    from datatrove.pipeline.formatters import PIIFormatter

    return PIIFormatter(email_replacement=MAIL, ip_replacement=IP)
