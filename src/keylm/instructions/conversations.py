"""Small talk, and conversations whose later turns refer back to earlier ones. They have no constraints."""

from __future__ import annotations

from collections.abc import Callable

from keylm.common.documents import Message
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import assistant_message, user_message
from keylm.instructions.topics import sample_request, sample_sentences, sample_topic

GREETINGS = (
    "Hello!",
    "Hello",
    "Hi!",
    "Hi",
    "Hey there!",
    "Good morning!",
    "Good evening!",
    "Hi, how are you?",
    "Hello, nice to meet you.",
)
WELCOMES = (
    "Hello! How can I help you?",
    "Hi! What would you like to talk about?",
    "Hello! I am glad to talk with you.",
    "Hi there! What can I do for you?",
)
IDENTITY_QUESTIONS = (
    "Who are you?",
    "What are you?",
    "What is your name?",
    "Tell me who you are.",
    "Do you have a name?",
    "Are you a person?",
    "Introduce yourself.",
)
IDENTITY_ANSWERS = (
    "I am KeyLM, a small language model.",
    "My name is KeyLM. I am a small language model.",
    "I am KeyLM. I am not a person but a small language model.",
    "I am a small language model, and my name is KeyLM.",
)
THANKS = ("Thank you!", "Thanks!", "Thank you very much.", "Thanks, that helps.", "Great, thanks.")
GOODBYES = ("Goodbye!", "Bye!", "See you later.", "I have to go now.", "Good night!")
FAREWELLS = ("Goodbye! It was nice to talk with you.", "See you soon!", "Goodbye and take care!")
MORE_REQUESTS = (
    "Tell me more.",
    "Tell me more about it.",
    "Go on.",
    "What else do you know?",
    "More, please.",
    "And what else?",
)
TOPIC_QUESTIONS = (
    "What were we talking about?",
    "What was my question about?",
    "What is our topic?",
    "Remind me what this is about.",
)
UPPERCASE_REQUESTS = ("Say that in capital letters.", "Now all in capitals, please.", "Write that again in upper case.")
LOWERCASE_REQUESTS = (
    "Say that in small letters.",
    "Now all in lower case, please.",
    "Write that again without capital letters.",
)
REPEAT_REQUESTS = ("Say that again.", "Repeat that, please.", "Can you repeat that?", "Once more, please.")


def small_talk(sampler: Sampler) -> list[Message]:
    """A greeting, a question about the model or a goodbye, or two of them in this order."""
    turns = [
        (sampler.choice(GREETINGS), sampler.choice(WELCOMES)),
        (sampler.choice(IDENTITY_QUESTIONS), sampler.choice(IDENTITY_ANSWERS)),
        (sampler.choice(GOODBYES), sampler.choice(FAREWELLS)),
    ]
    first = sampler.number(0, 2)
    return _conversation(turns[first : first + sampler.number(1, 2)])


def follow_up(sampler: Sampler) -> list[Message]:
    """A question about a topic, and a second turn that does not name the topic again."""
    topic = sample_topic(sampler)
    sentences = sample_sentences(topic, 5, sampler)
    first, more = " ".join(sentences[:2]), " ".join(sentences[2 : 2 + sampler.number(1, 3)])
    second_turn = sampler.choice(
        (
            (sampler.choice(MORE_REQUESTS), more),
            (sampler.choice(MORE_REQUESTS), more),
            (sampler.choice(TOPIC_QUESTIONS), f"We were talking about {topic.name}."),
            (sampler.choice(THANKS), f"You are welcome! I was glad to talk about {topic.name}."),
            (sampler.choice(UPPERCASE_REQUESTS), first.upper()),
            (sampler.choice(LOWERCASE_REQUESTS), first.lower()),
            (sampler.choice(REPEAT_REQUESTS), first),
        )
    )
    return _conversation([(sample_request(topic, sampler), first), second_turn])


def new_topic(sampler: Sampler) -> list[Message]:
    """Two topics in turn: the second answer is about the second."""
    topics = [sample_topic(sampler), sample_topic(sampler)]
    return _conversation(
        [(sample_request(topic, sampler), " ".join(sample_sentences(topic, 2, sampler))) for topic in topics]
    )


def recall(sampler: Sampler) -> list[Message]:
    """The user states a fact and asks for it one or two turns later."""
    name, secret = sampler.name(), " ".join(sampler.words(sampler.number(1, 3)))
    statement, question, answer = sampler.choice(
        (
            (f"Hello, I am {name}.", "What is my name?", f"Your name is {name}."),
            (f"My name is {name}.", "Do you know my name?", f"Yes, your name is {name}."),
            (f"The password is {secret}.", "What is the password?", f"The password is {secret}."),
            (f"Remember these words: {secret}", "Which words did I ask you to remember?", secret),
        )
    )
    reply = f"Hello {name}! How can I help you?" if name in statement else "I will remember that."
    between = [(sampler.choice(IDENTITY_QUESTIONS), sampler.choice(IDENTITY_ANSWERS))] if sampler.chance(0.4) else []
    return _conversation([(statement, reply), *between, (question, answer)])


CONVERSATIONS: tuple[Callable[[Sampler], list[Message]], ...] = (small_talk, follow_up, follow_up, new_topic, recall)
"""The types of conversation; follow-ups are drawn twice as often as the others."""


def _conversation(turns: list[tuple[str, str]]) -> list[Message]:
    """Pairs of a user's and an assistant's text as messages."""
    return [message for user, assistant in turns for message in (user_message(user), assistant_message(assistant))]
