"""Topics, requests about them, and templates of sentences that name them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from keylm.instructions.phrasings import Phrasings, capitalize
from keylm.instructions.sampler import Sampler

ORDERS = (
    "tell me about {topic}",
    "tell me something about {topic}",
    "tell me a little about {topic}",
    "tell me what you know about {topic}",
    "talk about {topic}",
    "say something about {topic}",
    "write about {topic}",
    "write a short text about {topic}",
    "write a few lines about {topic}",
    "write a paragraph about {topic}",
    "write a note on {topic}",
    "write something nice about {topic}",
    "write a short story about {topic}",
    "write a post about {topic}",
    "describe {topic}",
    "describe {topic} in your own words",
    "explain {topic} to me",
    "explain {topic} to a child",
    "introduce {topic}",
    "give me some facts about {topic}",
    "give a short talk on {topic}",
    "help me understand {topic}",
    "teach me about {topic}",
    "give me a short overview on {topic}",
    "write an overview about {topic}",
    "write a summary of {topic}",
    "give a brief summary about {topic}",
    "share what you know about {topic}",
    "share some thoughts about {topic}",
    "compose a text about {topic}",
    "compose a short passage on {topic}",
    "write a brief passage on {topic}",
    "let me hear about {topic}",
    "let me know what you think about {topic}",
    "present {topic} to me",
    "present {topic} to a friend",
    "discuss {topic} with me",
    "discuss {topic}",
    "prepare a speech on {topic}",
    "write a speech about {topic}",
    "say what comes to mind about {topic}",
    "fill me in about {topic}",
    "tell a visitor about {topic}",
    "summarise {topic}",
)
OPENINGS = (
    "{}.",
    "{} please.",
    "please {}.",
    "can you {}?",
    "could you please {}?",
    "hello! Can you {}?",
    "now {}.",
    "I want you to {}.",
)
REQUESTS = Phrasings(
    train=(
        *(opening.replace("{}", order) for opening in OPENINGS for order in ORDERS),
        "What is there to say about {topic}?",
        "What do you know about {topic}?",
        "What can you tell me about {topic}?",
        "What do people think of {topic}?",
        "What is special about {topic}?",
        "What makes {topic} interesting?",
        "Why do people like {topic}?",
        "Why should I care about {topic}?",
        "Do you know anything about {topic}?",
        "Have you heard of {topic}?",
        "I want to know more about {topic}.",
        "I want to learn about {topic}.",
        "I am curious about {topic}.",
        "I need a text about {topic}.",
        "I need some lines on {topic} for school.",
        "My friend asked me about {topic}. What should I say?",
        "My teacher wants a text on {topic}.",
        "Today we talk about {topic}.",
        "A few words about {topic}, please.",
        "What are your thoughts on {topic}?",
        "Topic: {topic}. Write a short answer.",
        "What comes to mind when you think of {topic}?",
        "What do you have in mind when you talk about {topic}?",
        "What do you think when people mention {topic}?",
        "When you hear of {topic}, what comes to mind first?",
        "What would you say about {topic}?",
        "What would you tell a visitor about {topic}?",
        "How would you describe {topic}?",
        "How would you explain {topic} to a visitor?",
        "Would you tell me about {topic}?",
        "Would you write something about {topic}?",
        "Could we talk about {topic}?",
        "Could we talk for a moment about {topic}?",
        "For a moment, let us discuss {topic}.",
        "I have to give a speech on {topic}.",
        "I have to write about {topic}.",
        "I have to prepare a talk about {topic}.",
        "I would like to hear more about {topic}.",
        "I would like an overview about {topic}.",
        "Your thoughts on {topic}, please.",
        "A brief overview on {topic}, please.",
        "A short passage about {topic}.",
    ),
    held_out=(
        "Give me an overview of {topic}.",
        "Share your thoughts on {topic}.",
        "Compose a brief passage about {topic}.",
        "Let me hear what you have to say about {topic}.",
        "How would you present {topic} to a visitor?",
        "Could we discuss {topic} for a moment?",
        "I have to prepare a speech about {topic}.",
        "What comes to your mind when you hear about {topic}?",
        "Would you write a summary about {topic}?",
        "Fill me in on {topic}.",
    ),
)

FIRST_SENTENCES = (
    "Here is something about {topic}.",
    "Here are some thoughts about {topic}.",
    "There is a lot to say about {topic}.",
    "Many people like {topic}.",
    "People have loved {topic} for a long time.",
    "Let me tell you about {topic}.",
    "I like to think about {topic}.",
    "This is a short text about {topic}.",
    "Not everybody knows {topic}, but many people should.",
    "One of my favourite subjects is {topic}.",
    "In {place}, people often talk about {topic}.",
    "Everybody in {place} has heard of {topic}.",
    "The story of {topic} began in {place}.",
    "When I think of {topic}, I think of {place}.",
)

SENTENCES = {
    "anything": (
        "You can learn about {topic} in {place}.",
        "Most people first hear of {topic} from {someone}.",
        "Every {time}, {someone} talks about {topic}.",
        "It is never too late to learn about {topic}.",
        "It takes time to understand {topic}, and that is fine.",
        "Some say that {topic} will never be forgotten.",
        "If you ask {someone}, you will hear more about {topic}.",
        "A good book about {topic} is easy to find.",
        "There are {adjective} stories about {topic}.",
        "I would call {topic} {adjective}.",
        "The best thing about {topic} is easy to see.",
        "In {place}, {someone} wrote a song about {topic}.",
        "Last {time}, {someone} showed me {topic}.",
        "Without {topic}, {place} would be less {adjective}.",
        "Pictures of {topic} hang in {place}.",
        "Children ask {someone} about {topic}.",
        "That is why so many people care about {topic}.",
    ),
    "things": (
        "Some {topic} are {adjective}, and some are not.",
        "You can find {topic} in {place}.",
        "In {place}, {topic} are {adjective} and loved by all.",
        "People use {topic} every {time}.",
        "With some care, {topic} last for many years.",
        "It is not hard to take care of {topic}.",
        "For {someone}, {topic} are worth a lot.",
        "When it rains, {topic} look {adjective}.",
        "Once {someone} gave me {topic} as a gift.",
        "The first {topic} came from {place}.",
        "{Someone} keeps {topic} at home.",
        "We saw {adjective} {topic} in {place}.",
    ),
    "person": (
        "{Topic} was born near {place}.",
        "In {place}, {topic} is known to all.",
        "As a child, {topic} lived near {place}.",
        "Every {time}, {topic} goes for a walk to {place}.",
        "{Someone} is an old friend of {topic}.",
        "The work of {topic} is {adjective}.",
        "Today {topic} is well known in {place}.",
        "{Topic} once helped {someone}.",
        "The letters of {topic} are {adjective} to read.",
        "{Someone} learned a lot from {topic}.",
    ),
    "place": (
        "{Topic} is a {adjective} place.",
        "The way to {topic} is long but {adjective}.",
        "Many visitors come to {topic} every {time}.",
        "From {topic}, you can see for many miles.",
        "{Someone} lives close to {topic}.",
        "The air at {topic} is fresh in the {time}.",
        "There is a path from {topic} to {place}.",
        "You can rest at {topic} for a while.",
        "Last {time}, {someone} went to {topic}.",
        "The people near {topic} are friendly to visitors.",
    ),
}

SLOTS = {
    "adjective": (
        "beautiful",
        "useful",
        "quiet",
        "famous",
        "simple",
        "strong",
        "lovely",
        "strange",
        "bright",
        "interesting",
        "important",
        "special",
        "warm",
        "gentle",
        "surprising",
        "popular",
        "calm",
        "friendly",
        "old",
        "wonderful",
    ),
    "place": (
        "the city",
        "the village",
        "the park",
        "the old market",
        "the mountains",
        "the north",
        "the south",
        "a small museum",
        "the library",
        "the garden",
        "the school",
        "a town by the sea",
        "a house by the river",
        "the old house",
        "my street",
    ),
    "someone": (
        "my grandmother",
        "a teacher",
        "the baker",
        "an old man",
        "a friend of mine",
        "my neighbour",
        "a young woman",
        "the doctor",
        "a sailor",
        "my sister",
        "a writer",
        "the farmer",
    ),
    "time": ("day", "week", "spring", "summer", "autumn", "winter", "morning", "evening", "year", "weekend"),
}
"""What fills the slots of a sentence other than the topic."""


@dataclass(frozen=True)
class Topic:
    """Something to talk about."""

    name: str
    type: str
    """`things`, `person` or `place`: decides which of `SENTENCES` fit."""


def sample_topic(sampler: Sampler) -> Topic:
    """Draw one of hundreds of thousands of topics: too many to memorize, so the name has to be copied."""
    topic_type = sampler.choice(("things", "things", "things", "things", "person", "place"))
    if topic_type == "person":
        return Topic(f"{sampler.people(1)[0]} {sampler.name()}", topic_type)
    if topic_type == "place":
        return Topic(f"{sampler.name()} {sampler.place()}", topic_type)
    # Bare nouns are few enough to memorize, so most things have a modifier.
    return Topic(sampler.noun() if sampler.chance(0.08) else f"{sampler.modifier()} {sampler.noun()}", topic_type)


def sample_request(topic: Topic, sampler: Sampler) -> str:
    """Draw a request to talk about `topic`."""
    return sampler.render(REQUESTS, topic=topic.name)


def sample_sentences(topic: Topic, count: int, sampler: Sampler) -> list[str]:
    """Draw `count` different sentences, each of which names `topic`."""
    more = sampler.rng.sample(SENTENCES["anything"] + SENTENCES[topic.type], count - 1)
    sentences: list[str] = []
    for template in (sampler.choice(FIRST_SENTENCES), *more):
        slots = {slot: sampler.choice(options) for slot, options in SLOTS.items()}
        slots |= {"topic": topic.name, "Topic": capitalize(topic.name), "Someone": capitalize(slots["someone"])}
        sentences.append(template.format(**slots))
    return sentences


def generate_texts(num_documents: int, seed: int) -> Iterator[str]:
    """Generate texts of two to seven sentences under the name of their topic; text `i` depends on the seed and `i`."""
    for index in range(num_documents):
        sampler = Sampler(Random(f"topics:{seed}:{index}"))
        topic = sample_topic(sampler)
        # Short ones more often: they are answers to requests that ask for no length.
        sentences = sample_sentences(topic, sampler.choice((2, 2, 3, 3, 4, 5, 6, 7)), sampler)
        yield f"# {capitalize(topic.name)}\n\n{' '.join(sentences)}"
