"""The tokenizer against Unicode, against transformers, and against strings that look like control tokens."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from keylm.common.errors import UserError
from keylm.tokenizer.tokenizer import CONTROL_TOKENS, SPLIT_REGEX, Tokenizer, read_merges
from keylm.tokenizer.training import MAX_WORD, drop_long_words, train_tokenizer

VOCAB_SIZE = 400
TEXT = (
    "The quick brown fox jumps over the lazy dog, doesn't it? In 2024 there were 1234567 of them.\n\n"
    "    for fox in foxes:\n\tprint(fox)\r\n"
    "Über naïve façades, кошка и собака, 猫と犬, 🦊🐕.   Well... 'twas THEIR'S!\n"
    "Whether every word is learned whole or in pieces, the sentence should come back as it went in.\n"
)


@pytest.fixture(scope="module", params=sorted(SPLIT_REGEX))
def trained(request):
    return train_tokenizer([TEXT] * 3, VOCAB_SIZE, request.param)


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    trained.save(folder, context_length=512)
    return folder


def test_the_vocabulary_has_exactly_the_size_asked_for(trained):
    assert trained.vocab_size == VOCAB_SIZE
    assert sorted(trained.backend.get_vocab().values()) == list(range(VOCAB_SIZE))
    assert [trained.end_of_text, trained.turn_start, trained.turn_end] == [0, 1, 2]


def test_every_token_of_the_vocabulary_can_be_decoded(trained):
    assert all(isinstance(trained.decode([token], keep_control=True), str) for token in range(VOCAB_SIZE))


@given(text=st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_as_it_went_in(trained, text):
    assert trained.decode(trained.encode(text)) == text


@given(text=st.text(alphabet=" \t\n\r\u00a0\u2028'0129aZß猫\u0301🦊.<|>"))
@settings(max_examples=300, deadline=None)
def test_white_space_digits_and_marks_come_back_too(trained, text):
    assert trained.decode(trained.encode(text)) == text


@given(texts=st.lists(st.text(max_size=40), max_size=5))
@settings(max_examples=50, deadline=None)
def test_a_batch_is_encoded_as_its_texts_are(trained, texts):
    assert trained.encode_batch(texts) == [trained.encode(text) for text in texts]


@pytest.mark.parametrize("control", CONTROL_TOKENS)
def test_a_control_string_in_a_text_stays_characters(trained, control):
    ids = trained.encode(f"I wrote {control} myself")
    assert not {trained.end_of_text, trained.turn_start, trained.turn_end} & set(ids)
    assert trained.decode(ids) == f"I wrote {control} myself"


def test_a_saved_tokenizer_gives_the_same_ids(trained, folder):
    loaded = Tokenizer.load(folder)
    assert loaded.encode(TEXT) == trained.encode(TEXT)
    assert loaded.encode("<|im_end|>") == trained.encode("<|im_end|>")


@given(text=st.text(alphabet=st.characters(codec="utf-8")))
@settings(max_examples=200, deadline=None)
def test_transformers_gives_the_same_ids(trained, loaded_by_transformers, text):
    if not any(control in text for control in CONTROL_TOKENS):
        assert loaded_by_transformers(text, add_special_tokens=False)["input_ids"] == trained.encode(text)


@pytest.fixture(scope="module")
def loaded_by_transformers(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_transformers_knows_control_tokens_and_context(loaded_by_transformers):
    assert type(loaded_by_transformers).__name__ in ("PreTrainedTokenizerFast", "TokenizersBackend")
    assert loaded_by_transformers.model_max_length == 512
    assert len(loaded_by_transformers) == VOCAB_SIZE
    assert loaded_by_transformers.eos_token == "<|im_end|>"
    assert loaded_by_transformers.pad_token == "<|endoftext|>"
    assert loaded_by_transformers.decode([1, 2], skip_special_tokens=True) == ""


def test_transformers_adds_no_token_of_its_own(trained, loaded_by_transformers):
    assert loaded_by_transformers("Hello there")["input_ids"] == trained.encode("Hello there")


def test_merges_are_those_of_the_saved_file(folder):
    saved = json.loads((folder / "tokenizer.json").read_text())
    merges = list(read_merges(folder))
    assert len(merges) == VOCAB_SIZE - 256 - len(CONTROL_TOKENS)
    assert all("".join(merge.split(" ")) in saved["model"]["vocab"] for merge in merges)


def test_training_is_deterministic():
    first, second = (train_tokenizer([TEXT] * 2, 400, "qwen2") for _ in range(2))
    assert first.backend.to_str() == second.backend.to_str()


def test_too_little_text_is_an_error():
    with pytest.raises(UserError, match=r"yields only .* model.vocab_size asks for 5,000"):
        train_tokenizer(["a little text"], 5000, "qwen2")


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer.json: run the `tokenizer` stage first"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("letter", ["a", "ß", "7", "-", "_", " ", "\u00a0"])
def test_long_words_are_left_out_of_training(letter: str) -> None:
    longest = letter * MAX_WORD
    assert drop_long_words(f"x{longest}y" if letter.isspace() else f"x {longest} y")[1] == 0
    text, count = drop_long_words(f"The end. {letter * 2_000_000}\nNext {letter * 3_000}")
    assert count == 2
    assert text.split() == ["The", "end.", "Next"]


def test_text_without_spaces_keeps_its_words() -> None:
    text = "我爱北京天安门，天安门上太阳升。" * 500
    assert drop_long_words(text) == (text, 0)


def test_bytes_that_are_no_text_get_a_sentence() -> None:
    """At a terminal and on the command line, Python turns them into lone surrogates."""
    tokenizer = train_tokenizer(["a little text"] * 20, 262, "qwen2")
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch(["whole", text])):
        with pytest.raises(UserError, match="bytes that are not UTF-8"):
            encode(b"caf\xe9".decode("utf-8", "surrogateescape"))
