import re

from helpers.instruction_samples import make_sampler

from keylm.common.documents import Document
from keylm.data.sources.registry import read_source
from keylm.instructions import topics
from keylm.instructions.word_lists import word_list
from keylm.recipe.sources import BacktranslationConfig, ConstrainedChatConfig, TopicsConfig


def test_answers_name_their_topic_first_and_again() -> None:
    for seed in range(1000):
        draw = make_sampler(seed)
        topic = topics.sample_topic(draw)
        sentences = topics.sample_sentences(topic, 3, draw)
        assert all(topic.name.lower() in sentence.lower() for sentence in sentences)
        assert len(set(sentences)) == 3


def test_requests_are_phrased_in_many_ways() -> None:
    assert len(set(topics.REQUESTS.train)) > 150
    assert len(set(topics.REQUESTS.held_out)) >= 8


def test_a_text_depends_on_seed_and_number_alone() -> None:
    texts = list(topics.generate_texts(50, seed=1))
    assert list(topics.generate_texts(20, seed=1)) == texts[:20]
    assert list(topics.generate_texts(50, seed=2)) != texts


def test_texts_are_about_their_title_and_use_no_held_out_word() -> None:
    texts = list(topics.generate_texts(500, seed=0))
    assert all(text[2:].split("\n\n")[0].lower() in text.split("\n\n")[1].lower() for text in texts)
    held_out = {word.lower() for name in ("nouns", "modifiers") for word in word_list(name, held_out=True)}
    titles = " ".join(text.split("\n\n")[0].lower() for text in texts)
    assert not held_out & set(re.findall(r"\w+", titles))


def test_requests_are_written_for_texts_and_constrained() -> None:
    requests = BacktranslationConfig(
        name="requests", from_source=TopicsConfig(name="texts", num_documents=300), text_task_fraction=0
    )
    documents: list[Document] = list(read_source(ConstrainedChatConfig(name="chat", from_source=requests), seed=0))
    assert len(documents) > 60
    assert all(document.messages and document.messages[-1]["role"] == "assistant" for document in documents)
