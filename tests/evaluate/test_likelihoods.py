import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keylm.evaluate.likelihoods import log_likelihoods
from keylm.model.transformer import KeyLM
from keylm.recipe.model import ModelConfig

CONTEXT = 24


@pytest.fixture(scope="module")
def model() -> KeyLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64, "max_position_embeddings": CONTEXT}
    return KeyLM(ModelConfig(**sizes)).eval()


def one_by_one(model: KeyLM, question: list[int], answer: list[int]) -> tuple[float, bool]:
    whole = [*question, *answer][-(CONTEXT + 1) :]
    logits = model.logits(torch.tensor([whole[:-1]]))[0, -len(answer) :]
    target = torch.tensor(answer)
    log_prob = logits.log_softmax(-1).gather(1, target[:, None]).sum().item()
    return log_prob, bool((logits.argmax(-1) == target).all())


ids = st.lists(st.integers(0, 12), min_size=1, max_size=18)
requests = st.lists(st.tuples(st.sampled_from([[1], [1, 2, 3], [7] * 10, [3, 1] * 9]), ids), min_size=1, max_size=12)


@settings(deadline=None, max_examples=40)
@given(requests, st.integers(1, 200))
def test_answers_are_scored_as_if_each_stood_alone(
    model: KeyLM, requests: list[tuple[list[int], list[int]]], batch_tokens: int
) -> None:
    for result, request in zip(log_likelihoods(model, requests, batch_tokens), requests, strict=True):
        expected = one_by_one(model, *request)
        assert result[0] == pytest.approx(expected[0], abs=1e-4)
        assert result[1] == expected[1]


def test_the_likeliest_answer_is_greedy(model: KeyLM) -> None:
    answer: list[int] = []
    for _ in range(4):
        answer.append(int(model.logits(torch.tensor([[5, 6, *answer]]))[0, -1].argmax()))
    assert [greedy for _, greedy in log_likelihoods(model, [([5, 6], answer), ([5, 6], [*answer[:3], 0])])] == [
        True,
        False,
    ]


@pytest.fixture
def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of every forward pass, padding included."""
    sizes: list[int] = []
    forward = KeyLM.forward

    def count(self, tokens, *rest, **options):
        sizes.append(tokens.numel())
        return forward(self, tokens, *rest, **options)

    monkeypatch.setattr(KeyLM, "forward", count)
    return sizes


def test_a_question_is_computed_once(model: KeyLM, batch_sizes: list[int]) -> None:
    log_likelihoods(model, [([9] * 15, [1, 2]), ([9] * 15, [3, 4]), ([9] * 15, [5])])
    log_likelihoods(model, [([9] * 15, [1, 2, 3, 4]), ([9] * 15, [1, 2, 5, 6, 7])])
    assert batch_sizes == [15 + 1 + 1 + 0, 15 + 2 + 1 + 2]


def test_many_answers_to_one_question_do_not_share_a_pass(model: KeyLM, batch_sizes: list[int]) -> None:
    """As where a task is scored without its questions: memory would grow with the square of their number."""
    log_likelihoods(model, [([9], [number % 300, 1, 2]) for number in range(500)], batch_tokens=64)
    assert max(batch_sizes) <= 64


@pytest.mark.parametrize("request_", [([], [1]), ([1], []), ([1], [2] * (CONTEXT + 1))])
def test_an_invalid_request_is_named(model: KeyLM, request_: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError, match=r"request 1 needs a question, and an answer of 1 to 24 tokens"):
        log_likelihoods(model, [([1], [1]), request_])


def test_progress_counts_all_requests(model: KeyLM) -> None:
    done: list[int] = []
    log_likelihoods(model, [([number], [1, 2, 3]) for number in range(9)], 6, done.append)
    assert sum(done) == 9
    assert len(done) > 3
