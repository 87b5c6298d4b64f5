"""Masking of personal data: email addresses and public IP addresses as datatrove finds them, and phone numbers.

Each has one fixed replacement, so that a masked text does not depend on what was masked before it, and masking it again
changes nothing. One search finds the texts that can contain any of the three; of those, only the lines that can are
processed.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datatrove.pipeline.formatters import PIIFormatter

EMAIL = "email@example.com"
IP = "192.0.2.1"
"""Reserved for documentation (RFC 5737)."""
PHONE = "555-0100"
"""Reserved for fiction: 555-0100 to 555-0199 are not assigned."""

_CANDIDATE = re.compile(
    r"""[@+0-9](?:                       # one set of first characters: three times as fast as three alternatives
        (?<=@) | (?<=\+)[0-9]
        | (?<=[0-9])(?:[0-9]{2}[-. ][0-9]{4} | \.[0-9]{1,3}\.[0-9])
    )""",
    re.VERBOSE,
)
"""Part of every email address, phone number and IP address."""

_NORTH_AMERICAN = re.compile(
    r"""(?<![\w.,/:$€£¥#+-])
    (?:\+?1[-. ]?)?                      # country code
    (?:\([2-9][0-9]{2}\)[ ]?|[2-9][0-9]{2}[-.])  # area code, in parentheses or followed by a mark
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
_MIN_DIGITS, _MAX_DIGITS = 10, 15
"""Digits of an international number: E.164 allows at most 15; shorter numbers with a plus sign are mostly sums."""


def mask_personal_data(text: str) -> str:
    """The text with `EMAIL`, `IP` and `PHONE` in place of what looks like one.

    Phone numbers are recognized with a plus sign and a country code, and North American ones with their area code in
    parentheses or followed by a hyphen or a period. Digits without such marks are kept: they are more often dates, sums
    and book numbers.
    """
    if not _CANDIDATE.search(text):
        return text
    # No address or number crosses a line end, so the slow regular expressions see only the lines in question.
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if _CANDIDATE.search(line):
            without_numbers = _INTERNATIONAL.sub(_mask_number, _NORTH_AMERICAN.sub(PHONE, line))
            lines[number] = str(_formatter().format(without_numbers))
    return "\n".join(lines)


def _mask_number(match: re.Match[str]) -> str:
    digits = sum(map(str.isdigit, match[0]))
    return PHONE if _MIN_DIGITS <= digits <= _MAX_DIGITS else match[0]


@cache
def _formatter() -> PIIFormatter:
    from datatrove.pipeline.formatters import PIIFormatter

    return PIIFormatter(email_replacement=EMAIL, ip_replacement=IP)
