from keylm.instructions import conversations


def test_small_talk_says_who_speaks() -> None:
    assert all("KeyLM" in answer for answer in conversations.IDENTITY_ANSWERS)
