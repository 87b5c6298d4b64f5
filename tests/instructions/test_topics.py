from helpers.instruction_samples import make_sampler

from keylm.instructions import topics


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
