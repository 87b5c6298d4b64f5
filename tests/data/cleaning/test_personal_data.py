"""What is masked and what is left alone: by hand, and beside datatrove's formatter."""

import pytest
from datatrove.pipeline.formatters import PIIFormatter
from hypothesis import given
from hypothesis import strategies as st

from keylm.data.cleaning.personal_data import EMAIL, IP, PHONE, mask_personal_data


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to Ann.Lee+x@mail.example.co.uk today.", f"Write to {EMAIL} today."),
        ("It answers at 8.8.8.8 and 1.1.1.1.", f"It answers at {IP} and {IP}."),
        ("Call (415) 555-2671.", f"Call {PHONE}."),
        ("Call (415)555-2671, ext. 4", f"Call {PHONE}, ext. 4"),
        ("call 415-555-2671 or 415.555.2671", f"call {PHONE} or {PHONE}"),
        ("1-800-555-2671; +1 415 555 2671", f"{PHONE}; {PHONE}"),
        ("+44 20 7946 0958\n+49 (0)30 901820", f"{PHONE}\n{PHONE}"),
        ("tel:+14155552671", f"tel:{PHONE}"),
        ("+491752088077", PHONE),
    ],
)
def test_personal_data_by_hand(text, masked):
    assert mask_personal_data(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "On 2011-11-15 at 10:00:00+0100, and on 15.11.2011 or 11/15/2011; 1998-2003.",
        "It costs $415.555 or $1,234.5678, 415 555 2671 in all, +12.50 more, 2+10000000 = 10000002.",
        "ISBN 978-0-306-40615-7, ISBN-10 0-306-40615-2, ISBN 9780306406157, ISSN 2049-3630, 978-316-1484-10-0",
        "Version 1.2.3, numpy 2.4.6-rc1, build 415.555.26711, 10.4.415-555-2671.2",
        "The router is at 192.168.0.1, the machine at 127.0.0.1, the mask 255.255.255.0.",
        "Follow @somebody, or meet us @ noon.",
        "100-200-3000 and 415-155-2671 begin as no area code or exchange does.",
        "A row 4155552671 of digits, 415-555-26712, x415-555-2671.",
    ],
)
def test_what_only_looks_similar_is_left_alone(text):
    assert mask_personal_data(text) == text


pieces = st.sampled_from(
    "8.8.8.8|10.0.0.1|a@b.co|@|+|.|1.2.3.4|x y|\n| |1|203-|é|256.1.1.1|c@[8.8.8.8]".split("|")  # noqa: SIM905
)


@given(parts=st.lists(pieces))
def test_email_and_ip_masks_are_datatrove_s(parts):
    text = "".join(parts)
    if PHONE not in mask_personal_data(text):
        assert mask_personal_data(text) == PIIFormatter(email_replacement=EMAIL, ip_replacement=IP).format(text)


@given(parts=st.lists(pieces | st.sampled_from(["+44 20 7946 0958", "(415) 555-2671", EMAIL, IP, PHONE])))
def test_what_is_masked_stays_as_it_is(parts):
    once = mask_personal_data(" ".join(parts))
    assert mask_personal_data(once) == once
