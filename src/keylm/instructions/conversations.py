"""Small talk, and conversations of several turns that come back to what was said before."""

from __future__ import annotations

from collections.abc import Callable

from keylm.common.documents import Message
from keylm.instructions.sampler import Sampler
from keylm.instructions.topics import request, sample_topic, sentences

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
WHO_QUESTIONS = (
    "Who are you?",
    "What are you?",
    "What is your name?",
    "Tell me who you are.",
    "Do you have a name?",
    "Are you a person?",
    "Introduce yourself.",
)
WHO_ANSWERS = (
    "I am KeyLM, a small language model.",
    "My name is KeyLM. I am a small language model.",
    "I am KeyLM. I am not a person but a small language model.",
    "I am a small language model, and my name is KeyLM.",
)
THANKS = ("Thank you!", "Thanks!", "Thank you very much.", "Thanks, that helps.", "Great, thanks.")
GOODBYES = ("Goodbye!", "Bye!", "See you later.", "I have to go now.", "Good night!")
FAREWELLS = ("Goodbye! It was nice to talk with you.", "See you soon!", "Goodbye and take care!")
MORE = (
    "Tell me more.",
    "Tell me more about it.",
    "Go on.",
    "What else do you know?",
    "More, please.",
    "And what else?",
)
RECALLS = (
    "What were we talking about?",
    "What was my question about?",
    "What is our topic?",
    "Remind me what this is about.",
)
SHOUTS = ("Say that in capital letters.", "Now all in capitals, please.", "Write that again in upper case.")
WHISPERS = ("Say that in small letters.", "Now all in lower case, please.", "Write that again without capital letters.")
AGAIN = ("Say that again.", "Repeat that, please.", "Can you repeat that?", "Once more, please.")


def small_talk(sampler: Sampler) -> list[Message]:
    """A greeting, a question about the model, or both."""
    turns = [
        (sampler.choice(GREETINGS), sampler.choice(WELCOMES)),
        (sampler.choice(WHO_QUESTIONS), sampler.choice(WHO_ANSWERS)),
        (sampler.choice(GOODBYES), sampler.choice(FAREWELLS)),
    ]
    first = sampler.number(0, 2)
    return _conversation(turns[first : first + sampler.number(1, 2)])


def follow_up(sampler: Sampler) -> list[Message]:
    """A question about a topic and a second turn that says no more what the topic is."""
    topic = sample_topic(sampler)
    said = sentences(topic, 5, sampler)
    first, more = " ".join(said[:2]), " ".join(said[2 : 2 + sampler.number(1, 3)])
    second = sampler.choice(
        (
            (sampler.choice(MORE), more),
            (sampler.choice(MORE), more),
            (sampler.choice(RECALLS), f"We were talking about {topic.name}."),
            (sampler.choice(THANKS), f"You are welcome! I was glad to talk about {topic.name}."),
            (sampler.choice(SHOUTS), first.upper()),
            (sampler.choice(WHISPERS), first.lower()),
            (sampler.choice(AGAIN), first),
        )
    )
    return _conversation([(request(topic, sampler), first), second])


def new_topic(sampler: Sampler) -> list[Message]:
    """Two topics, one after the other: the second answer is about the second."""
    topics = [sample_topic(sampler), sample_topic(sampler)]
    return _conversation([(request(topic, sampler), " ".join(sentences(topic, 2, sampler))) for topic in topics])


def remember(sampler: Sampler) -> list[Message]:
    """Something the user said comes back two turns later."""
    name, secret = sampler.name(), " ".join(sampler.words(sampler.number(1, 3)))
    greeting, question, answer = sampler.choice(
        (
            (f"Hello, I am {name}.", "What is my name?", f"Your name is {name}."),
            (f"My name is {name}.", "Do you know my name?", f"Yes, your name is {name}."),
            (f"The password is {secret}.", "What is the password?", f"The password is {secret}."),
            (f"Remember these words: {secret}", "Which words did I ask you to remember?", secret),
        )
    )
    reply = f"Hello {name}! How can I help you?" if name in greeting else "I will remember that."
    between = [(sampler.choice(WHO_QUESTIONS), sampler.choice(WHO_ANSWERS))] if sampler.chance(0.4) else []
    return _conversation([(greeting, reply), *between, (question, answer)])


CONVERSATIONS: tuple[Callable[[Sampler], list[Message]], ...] = (small_talk, follow_up, follow_up, new_topic, remember)


def _conversation(turns: list[tuple[str, str]]) -> list[Message]:
    messages: list[Message] = []
    for user, assistant in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return messages
