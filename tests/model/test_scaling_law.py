"""The scaling law: the predictions that `docs/scaling.md` states, and text that is repeated."""

from __future__ import annotations

import pytest

from keylm.model.scaling_law import predict_bits_per_byte


@pytest.mark.parametrize(("tokens", "expected"), [(1e9, 1.28), (18e9, 1.23)])
def test_the_published_model_is_predicted_as_documented(tokens: float, expected: float) -> None:
    # Beyond the optimum for these tokens, the law of excess parameters takes nothing from a model of this size.
    assert predict_bits_per_byte(69.1e6, tokens, tokens) == pytest.approx(expected, abs=0.01)


def test_new_text_is_worth_more_than_repeated_text() -> None:
    once, four, sixteen, endless = (predict_bits_per_byte(3e5, n * 1e6, 1e6) for n in (1, 4, 16, 10_000))
    new = predict_bits_per_byte(3e5, 4e6, 4e6)
    assert once > four > sixteen > endless
    assert new < four
    # Four epochs are nearly as good as new text (Muennighoff et al. 2023), and the last thousands are worth nothing.
    assert four - new < 0.35 * (once - new)
    assert sixteen - endless < once - four


def test_a_model_that_its_text_cannot_fill_gains_nothing() -> None:
    small, large, huge = (predict_bits_per_byte(size, 1e6, 1e5) for size in (1e5, 1e6, 1e8))
    assert small > large
    assert large - huge < 0.01
