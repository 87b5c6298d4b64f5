"""Conversations made from plain text: whole sentences of the document, about what the request asks for."""

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keylm.common.documents import Document
from keylm.instructions.backtranslation.excerpts import MAX_WORDS, MIN_WORDS, cut_excerpts
from keylm.instructions.backtranslation.generate import backtranslate, generate_conversations
from keylm.instructions.backtranslation.grammar import load_rules, num_wordings
from keylm.instructions.backtranslation.prose import clean_paragraph, is_usable, read_sections, split_paragraph
from keylm.instructions.backtranslation.situations import find_noun_phrases
from keylm.instructions.backtranslation.subjects import find_subject, names_subject
from keylm.instructions.constrained_chat import prose_sentences
from keylm.recipe.sources import BacktranslationConfig, FilesConfig

TEA = """# Tea

Tea (from ) is a hot drink made from the leaves of a shrub [1]. It is drunk all over the world. See Figure 3 for a map.

## History

Tea was first drunk in China , where Dr. Lu wrote a book about it. The habit spread to Japan and later to Europe.

However, tea was expensive at first. * green tea

## Further reading

Many books on tea have been written by people who love tea. Tea is loved by many people.
"""


def config(**settings_of_source) -> BacktranslationConfig:
    return BacktranslationConfig(name="x", from_source=FilesConfig(name="y", path="z"), **settings_of_source)


PLAIN = config(dressed_fraction=0, text_task_fraction=0)


def conversations(text: str, source: BacktranslationConfig = PLAIN, seed: int = 0) -> list[tuple[str, str]]:
    documents = backtranslate(Document(text=text), source, seed)
    return [tuple(document.contents) for document in documents]


def test_each_section_answers_a_request_for_its_part() -> None:
    lead, history, *rest = conversations(TEA)
    assert re.search(r"\btea\b", lead[0], re.IGNORECASE)
    assert lead[1].startswith("Tea is a hot drink made from the leaves of a shrub.")
    assert "history" in history[0].lower()
    assert history[1].startswith("Tea was first drunk in China, where Dr Lu wrote a book about it.")
    assert not any(mark in answer for _, answer in (lead, history, *rest) for mark in ("Figure", "[", "*"))


WORDS = ("tea", "water", "leaves", "people", "rivers", "Lu", "green", "grow", "carry", "see", "old", "slowly")
sentences = st.lists(st.sampled_from(WORDS), min_size=4, max_size=14).map(lambda words: f"Tea {' '.join(words)}.")
noise = st.sampled_from(
    ["However, it went on.", "See [1] for *more*.", "as shown in Figure 3.", 'He said "no.', "1) item"]
)
paragraphs = st.lists(sentences | noise, min_size=1, max_size=6).map(" ".join)
documents = st.lists(paragraphs, min_size=1, max_size=8).map(lambda blocks: "# Tea\n\n" + "\n\n".join(blocks))


@given(documents, st.integers(0, 5))
def test_answers_are_whole_sentences_of_the_document(text: str, seed: int) -> None:
    own = {sentence for block in text.split("\n\n") for sentence in re.split(r"(?<=\.) ", block)}
    for request, answer in conversations(text, seed=seed):
        answered = [sentence for line in answer.split("\n\n") for sentence in re.split(r"(?<=\.) ", line)]
        assert set(answered) <= own
        assert len(set(answered)) == len(answered)
        assert MIN_WORDS <= len(answer.split()) <= MAX_WORDS
        assert "tea" in request.lower()
        assert "tea" in " ".join(answered[:2]).lower()
        assert not re.search(r"[*\[\]#]|Figure|^However", answer)
        assert prose_sentences(answer)
    for _, answer in conversations(
        text, config(max_words_per_answer=30, dressed_fraction=0, text_task_fraction=0), seed
    ):
        assert MIN_WORDS <= len(answer.split()) <= 30


@given(documents, st.integers(0, 5), st.sampled_from(["article", "story", "review", "speech", "situation"]))
@settings(max_examples=40)
def test_the_result_depends_on_document_settings_and_seed_only(text: str, seed: int, genre: str) -> None:
    source = config(genre=genre)
    both = list(generate_conversations([Document(text="# Milk\n\nMilk is white."), Document(text=text)], source, seed))
    alone = list(generate_conversations([Document(text=text)], source, seed))
    assert both[len(both) - len(alone) :] == alone
    assert all([message["role"] for message in document.messages] == ["user", "assistant"] for document in alone)


def test_no_document_gives_more_than_its_share_and_no_sentence_twice() -> None:
    text = "# Tea\n\n" + "\n\n".join(
        f"Tea number {number} is grown in a garden near a river with much rain." for number in range(90)
    )
    answers = [
        answer
        for _, answer in conversations(text, config(max_per_document=3, dressed_fraction=0, text_task_fraction=0))
    ]
    assert len(answers) == 3
    assert len(set(answers)) == 3


def test_conversations_are_left_out() -> None:
    said = Document(messages=({"role": "user", "content": "Hi."}, {"role": "assistant", "content": TEA}))
    assert list(generate_conversations([said], PLAIN, 0)) == []


def test_news_is_not_taken_for_a_story() -> None:
    assert conversations(TEA, config(genre="story"))
    assert not conversations(TEA + "\n\nIn 1990 and 1991, a study said, prices rose.", config(genre="story"))


@pytest.mark.parametrize(
    ("block", "clean"),
    [
        ("Tea (, ) is “hot” .", 'Tea is "hot".'),
        ("Dr. Lu and Mr. J. R. Hale drank e.g. milk.", "Dr Lu and Mr J R Hale drank for example milk."),
        ("The U.S. Army left the U.S. The end.", "The US Army left the U.S. The end."),
        ("Tea is old (Lu, 1990). It is old.[2]", "Tea is old. It is old."),
        ('He said, "Come." She came.', 'He said, "Come". She came.'),
        ("THE cat slept--it snored.", "The cat slept—it snored."),
    ],
)
def test_remnants_and_full_stops_that_end_nothing_go(block: str, clean: str) -> None:
    assert clean_paragraph(block) == clean


@pytest.mark.parametrize(
    "sentence",
    [
        "Look at Figure 3 for this.",
        "The distance is about and so on.",
        "It cost .",
        "it begins in lower case.",
        "There is no end",
        "An (open bracket is here.",
        'A "quotation is open.',
        "Use `code` here.",
        "This chapter is about tea.",
        "They went home vs. him.",
        "See https://tea.org for it.",
        "Short one.",
    ],
)
def test_sentences_with_something_missing_are_not_used(sentence: str) -> None:
    assert not is_usable(sentence)


def test_a_quotation_stays_in_one_piece() -> None:
    assert split_paragraph('He said, "Come in. Sit down!" She sat. "Why?" he asked.') == [
        'He said, "Come in. Sit down!"',
        "She sat.",
        '"Why?" he asked.',
    ]


@pytest.mark.parametrize(
    ("title", "heading", "text", "full"),
    [
        ("Arithmetic mean", "", "In mathematics the arithmetic mean is a sum. It is old.", "the arithmetic mean"),
        ("Alabama", "", "Alabama is a state in the south.", "Alabama"),
        ("Ada Hale", "Early life", "Hale was born in Ulm, and she liked it.", "the early life of Ada Hale"),
        ("Physics", "The Cell Cycle", "The cell cycle is the life of a cell.", "the cell cycle"),
        ("", "", "A hedgehog was here. The hedgehog slept. Nobody woke the hedgehog.", "a hedgehog"),
        ("Astronomer", "", "Most astronomers work at night. The astronomers sleep late.", "astronomers"),
        ("", "", "The story of Luna is old. Nobody knew where Luna came from.", "Luna"),
    ],
)
def test_subjects_come_from_captions_or_recur(title: str, heading: str, text: str, full: str) -> None:
    subject = find_subject(title, heading, re.split(r"(?<=\.) ", text))
    assert subject is not None
    assert subject.full == full


def test_poor_subjects_are_none() -> None:
    assert find_subject("Summary", "Key Terms", ["People went home.", "It was late."]) is None
    assert find_subject("Tea", "", ["Milk is white.", "It is drunk."]) is None


@given(documents)
def test_excerpts_name_their_subject_and_can_stand_alone(text: str) -> None:
    for excerpt in cut_excerpts(read_sections(text), Random(0)):
        assert names_subject(excerpt.subject.bare, " ".join(excerpt.sentences[:2]))
        assert not excerpt.sentences[0].startswith(("However", "It ", "He "))


def test_forms_have_greeting_real_sentences_and_the_names_asked_for() -> None:
    dressed = config(dressed_fraction=1, text_task_fraction=0)
    for seed in range(60):
        request, answer = conversations("# Tea\n\nTea is a hot drink made from the leaves of a shrub.", dressed, seed)[
            0
        ]
        assert "Tea is a hot drink made from the leaves of a shrub." in answer
        assert not answer.startswith("Tea")
        assert not re.search(r"[{}<>]", request + answer)


def test_text_tasks_are_answered_by_their_text() -> None:
    text = "# Tea\n\n" + "Tea is a drink that Lu likes. Old Hale and Lu grow tea by the sea. Green leaves turn black."
    asked = config(text_task_fraction=1, dressed_fraction=0)
    answers = set()
    for seed in range(150):
        for request, answer in conversations(text, asked, seed):
            answers.add(answer)
            said = re.sub(r"^[-*] ", "", answer, flags=re.MULTILINE).lower()
            assert all(line in text.lower() for line in re.split(r"\n|, ", said)), (request, answer)
    assert len(answers) >= 7


def test_there_are_hundreds_of_wordings() -> None:
    grammar = load_rules("requests")
    rules = {**grammar["rules"], "how_long": ["", ""], "be": ["is"]}
    for kind, patterns in grammar.items():
        if kind != "rules":
            assert sum(num_wordings(pattern, rules) for pattern in patterns) >= (10 if kind == "who" else 20), kind
    assert sum(num_wordings(pattern, rules) for pattern in grammar["about"]) > 1000


FERRY = """The old ferry stopped last week, and our river is high. Nobody knows who will repair it.

My neighbor found a wooden boat in the harbor."""


def test_situations_come_with_requests_whose_answers_name_something_of_them() -> None:
    told, forms = set(), set()
    for seed in range(400):
        for request, answer in conversations(FERRY, config(genre="situation"), seed):
            told |= {sentence for sentence in re.split(r"(?<=[.])\s+", FERRY) if sentence in request}
            forms |= set(re.findall("story|poem|notice|letter|tips|facts|speech|slogan|portrait", request.lower()))
            named = [topic for topic in ("old ferry", "river", "neighbor", "wooden boat", "harbor") if topic in answer]
            assert any(topic in request.lower() for topic in named), (request, answer)
            assert prose_sentences(answer), answer
            assert not re.search(r"[{}<>]|  |\b(?:ferry|river|boat|harbor) are\b", f"{request}\n{answer}")
    assert "The old ferry stopped last week, and our river is high." in told
    assert len(forms) == 9
    assert not conversations("He sat there. It was late.", config(genre="situation"))


def test_a_topic_may_be_new_to_the_request() -> None:
    text = "The island is in our river with the nets."
    pairs = [pair for seed in range(200) for pair in conversations(text, config(genre="situation"), seed)]
    asked = " ".join(request for request, _ in pairs).lower()
    topics = ("an island", "the island", "our river", "the nets", "nets")
    assert all(f"about {topic}" in asked for topic in topics)
    assert not re.search(r"\ban? (?:our|nets)\b", asked)
    assert all("the island" in answer.lower() for request, answer in pairs if "about an island" in request)


def test_texts_for_situations_are_short_or_long() -> None:
    pairs = [pair for seed in range(300) for pair in conversations(FERRY, config(genre="situation"), seed)]
    lengths = sorted(len(answer.split()) for _, answer in pairs)
    assert lengths[0] < 20
    assert lengths[-1] > 200
    short = config(genre="situation", max_words_per_answer=50)
    limited = [pair for seed in range(300) for pair in conversations(FERRY, short, seed)]
    assert [request for request, _ in limited] == [request for request, _ in pairs]
    assert 40 < max(len(answer.split()) for _, answer in limited) <= 50


def test_a_question_of_the_text_can_be_the_request() -> None:
    question = "Who will repair the old ferry before our river is high?"
    asked = [conversations(question, config(genre="situation"), seed)[0] for seed in range(200)]
    alone = [answer for request, answer in asked if request == question]
    assert 20 < len(alone) < 100
    assert not any(re.search("Once upon|I am writing to you", answer) for answer in alone), "no letters and no stories"


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("She sold a wooden boat, and my uncle was glad. It slept.", ["the wooden boat", "my uncle"]),
        ("The thing is here, and the others sing.", []),
        ("These shoes are new. The shoes, the shoes.", ["these shoes", "the shoes"]),
    ],
)
def test_noun_phrases_are_words_between_an_article_and_what_ends_them(text: str, phrases: list[str]) -> None:
    assert find_noun_phrases(text) == phrases


def test_wordings_have_no_open_slots() -> None:
    text = (
        "# Tea\n\nTea is a hot drink made from leaves.\n\nMany people drink tea in the morning before they go to work."
    )
    for genre in ("article", "story", "review", "speech"):
        for seed in range(150):
            for content in sum(conversations(text, config(genre=genre), seed), ()):
                assert not re.search(r"[{}<>]|  |None", content), content
