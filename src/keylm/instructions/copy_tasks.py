"""Copy tasks: every word of the answer stands in the prompt, and only one answer is right.

A small model learns to look back (induction heads: Olsson et al. 2022, arXiv 2209.11895) from text in which that pays.
The tasks use random words and invented names, which cannot be recalled from other text.

    user       Which word comes after copper?        user       Repeat what I say.
               river copper lantern                  assistant  I will repeat what you say.
    assistant  After copper comes lantern.           user       Varnel Oskita
                                                     assistant  Varnel Oskita
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from keylm.common.documents import Message
from keylm.instructions.phrasings import Phrasings, orders, with_text
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import Check, Example, Task, assistant_message, user_message


@dataclass(frozen=True)
class AnyOf:
    """Check that the answer is one of the accepted texts, apart from case, white space and a final full stop."""

    name: str
    accepted: tuple[str, ...]

    def check(self, answer: str) -> bool:
        """Whether `answer` is accepted."""

        def normalize(text: str) -> str:
            return " ".join(text.strip().removesuffix(".").lower().split())

        return normalize(answer) in map(normalize, self.accepted)


@dataclass(frozen=True)
class Verbatim:
    """Check that the answer is exactly this text, apart from white space around it."""

    name: str
    text: str

    def check(self, answer: str) -> bool:
        """Whether `answer` is the text."""
        # For tasks whose point is the form: there case and line breaks are what is asked for.
        return answer.strip() == self.text


def repeat(sampler: Sampler) -> Example:
    """Repeat some words."""
    text = " ".join(sampler.words(sampler.choice((2, 3, 4, 5, 6, 8, 10, 14))))
    return _single_turn(sampler.render(REPEAT, text=text), text, AnyOf("repeat words", (text,)))


def repeat_names(sampler: Sampler) -> Example:
    """Repeat some invented names."""
    text = _names(sampler, sampler.number(1, 6))
    return _single_turn(sampler.render(REPEAT, text=text), text, AnyOf("repeat names", (text,)))


def repeat_times(sampler: Sampler) -> Example:
    """Repeat some words or names several times, one line each."""
    text, times = _words_or_names(sampler, sampler.number(1, 6)), sampler.number(2, 4)
    prompt = sampler.render(TIMES, text=text, times=("twice", "three times", "four times")[times - 2])
    answer = "\n".join([text] * times)
    return _single_turn(prompt, answer, AnyOf("say it several times", (answer,)))


def echo_game(sampler: Sampler) -> Example:
    """Repeat each of the user's messages, for two to five rounds."""
    *previous, last = [_words_or_names(sampler, sampler.number(1, 8)) for _ in range(sampler.number(2, 5))]
    messages: list[Message] = [
        user_message(sampler.render(ECHO)),
        assistant_message("I will repeat what you say."),
    ]
    for text in previous:
        messages += [user_message(text), assistant_message(text)]
    return Example(Task([*messages, user_message(last)], None, (AnyOf("echo game", (last,)),)), last)


def first_word(sampler: Sampler) -> Example:
    """Find the first word of a line."""
    line = sampler.words(sampler.number(3, 8))
    return _sentence("first word", sampler.render(FIRST, text=" ".join(line)), "The first word is {}.", line[0])


def last_word(sampler: Sampler) -> Example:
    """Find the last word of a line."""
    line = sampler.words(sampler.number(3, 8))
    return _sentence("last word", sampler.render(LAST, text=" ".join(line)), "The last word is {}.", line[-1])


def next_word(sampler: Sampler) -> Example:
    """Find the word that follows a given word."""
    # The words of a line differ, so only one can follow the given one.
    line = sampler.words(sampler.number(4, 8))
    index = sampler.number(0, len(line) - 2)
    prompt = sampler.render(NEXT, text=" ".join(line), word=line[index])
    return _sentence("next word", prompt, f"After {line[index]} comes {{}}.", line[index + 1])


def continue_line(sampler: Sampler) -> Example:
    """Continue a line from a given word to its end."""
    line = sampler.words(sampler.number(5, 9))
    index = sampler.number(0, len(line) - 3)
    prompt = sampler.render(CONTINUE, text=" ".join(line), word=line[index])
    return _sentence("rest of the line", prompt, f"After {line[index]} comes {{}}.", " ".join(line[index + 1 :]))


def look_up(sampler: Sampler) -> Example:
    """Look up the value of a key in a small table."""
    count = sampler.number(2, 5)
    words = sampler.words(2 * count)
    rows = list(zip(words[:count], words[count:], strict=True))
    key, value = sampler.choice(rows)
    prompt = sampler.render(LOOK_UP, text="\n".join(f"{key}: {value}" for key, value in rows), key=key)
    return _sentence("look up a key", prompt, f"The value of {key} is {{}}.", value)


def bullets(sampler: Sampler) -> Example:
    """Write given words as a bullet list."""
    items = sampler.words(sampler.number(2, 6))
    answer = "\n".join(f"- {item}" for item in items)
    return _verbatim("items as bullets", sampler.render(BULLETS, text=", ".join(items)), answer)


def numbered(sampler: Sampler) -> Example:
    """Write given words as a numbered list."""
    items = sampler.words(sampler.number(2, 6))
    answer = "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))
    return _verbatim("items as a numbered list", sampler.render(NUMBERED, text=", ".join(items)), answer)


def quote(sampler: Sampler) -> Example:
    """Put given words in quotation marks."""
    text = " ".join(sampler.words(sampler.number(1, 5)))
    return _verbatim("quote words", sampler.render(QUOTE, text=text), f'"{text}"')


def capitals(sampler: Sampler) -> Example:
    """Write given words in capital letters."""
    text = " ".join(sampler.words(sampler.number(1, 5)))
    return _verbatim("words in capitals", sampler.render(CAPITALS, text=text), text.upper())


def choose(sampler: Sampler) -> Example:
    """Choose one of the given options and say nothing else."""
    options = sampler.words(sampler.number(2, 3))
    prompt = sampler.render(CHOOSE, options=" or ".join(f'"{option}"' for option in options))
    return _single_turn(prompt, sampler.choice(options), AnyOf("choose an option", tuple(options)))


def own_name(sampler: Sampler) -> Example:
    """Say the user's name."""
    # Most of the names are invented: guessing a common first name must not work.
    name = sampler.choice((sampler.name(), *sampler.people(1)))
    aside = sampler.choice(("", f"I like {sampler.modifier()} {sampler.noun()}. ", f"I live near {sampler.name()}. "))
    return _sentence("the user's name", sampler.render(OWN_NAME, name=name, aside=aside), "Your name is {}.", name)


def possession(sampler: Sampler) -> Example:
    """Read a short passage and say what somebody has, likes or sells."""
    facts = _facts(sampler, sampler.number(1, 3))
    verb, question, answer_verb = sampler.choice(POSSESSIONS)
    person, thing = sampler.choice(facts)
    prompt = sampler.render(PASSAGE, passage=_passage(facts, verb), question=question.format(person))
    return _sentence("read a passage", prompt, f"{person} {answer_verb} {{}}.", thing)


def owner(sampler: Sampler) -> Example:
    """Read a short passage and say who has something."""
    facts = _facts(sampler, sampler.number(2, 3))
    person, thing = sampler.choice(facts)
    prompt = sampler.render(PASSAGE, passage=_passage(facts, "has"), question=f"Who has {thing}?")
    return _sentence("find the owner", prompt, f"{{}} has {thing}.", person)


def fill(sampler: Sampler) -> Example:
    """Fill the gaps of a sentence with given words."""
    template = sampler.choice(GAP_SENTENCES)
    words = sampler.words(template.count("{}"))
    prompt = sampler.render(FILL, words=" and ".join(words), text=template.replace("{}", "___"))
    answer = template.format(*words)
    return _single_turn(prompt, answer, AnyOf("fill the gaps", (answer,)))


DRILLS: tuple[Callable[[Sampler], Example], ...] = (echo_game, repeat, repeat_names, repeat_times)
"""The tasks that copy most."""
COPY_TASKS: tuple[Callable[[Sampler], Example], ...] = (
    *3 * DRILLS,
    first_word,
    last_word,
    next_word,
    continue_line,
    look_up,
    bullets,
    numbered,
    quote,
    capitals,
    choose,
    own_name,
    possession,
    owner,
    fill,
)
"""All copy tasks; the drills are drawn three times as often as the others."""

REPEAT = Phrasings(
    train=with_text(
        *orders(
            "repeat after me",
            "repeat this",
            "repeat this line",
            "repeat the following",
            "copy this",
            "copy this line",
            "copy these words",
            "copy the words exactly",
            "say this",
            "say this again",
            "say the following",
            "write this",
            "write this down",
            "write the same words",
            "type this text",
            "print this line",
            "give me this line again",
        )
    ),
    held_out=with_text("echo the following words", "reproduce this line", "give me back exactly this"),
)
TIMES = Phrasings(
    train=with_text(
        *orders(
            "say this {times}",
            "repeat this {times}",
            "repeat this line {times}",
            "write it {times}",
            "write these words {times}",
            "copy this {times}",
        )
    ),
    held_out=with_text("echo the following words {times}", "put this line down {times}"),
)
ECHO = Phrasings(
    train=(
        "Repeat what I say.",
        "Say what I say.",
        "Repeat every line after me.",
        "From now on, copy every line.",
        "Let us play a game: you say what I say.",
        "I say something and you say it again.",
        "Please repeat each of my messages.",
    ),
    held_out=("Be my echo from here on.", "Return each of my lines unchanged."),
)
FIRST = Phrasings(
    train=with_text(
        "what is the first word of this line?",
        "what is the first word?",
        "which word comes first?",
        "which of these words is the first?",
        *orders("say the first word", "give me the first word of this line", "find the first word"),
    ),
    held_out=with_text("name the first word in the line", "can you tell which word is first?"),
)
LAST = Phrasings(
    train=with_text(
        "what is the last word of this line?",
        "what is the last word?",
        "which word comes last?",
        "which of these words is the last?",
        *orders("say the last word", "give me the last word of this line", "find the last word"),
    ),
    held_out=with_text("name the last word in the line", "can you tell which word is last?"),
)
NEXT = Phrasings(
    train=with_text(
        "which word comes after {word}?",
        "what comes after {word}?",
        "what is the next word after {word}?",
        "what follows {word} in this line?",
        *orders("say the word after {word}", "find the word that comes after {word}"),
    ),
    held_out=with_text("name the word right after {word}", "can you tell which word follows {word}?"),
)
CONTINUE = Phrasings(
    train=with_text(
        "what are all the words after {word}?",
        *orders(
            "say all the words after {word}",
            "say everything that comes after {word}",
            "copy the rest of this line after {word}",
            "go on after {word} to the end",
        ),
    ),
    held_out=with_text("name all the words that follow {word}", "give me the rest of the line from {word} on"),
)
LOOK_UP = Phrasings(
    train=with_text(
        "what is the value of {key}?",
        "what belongs to {key}?",
        "what is next to {key}?",
        "which word belongs to {key} in this table?",
        *orders(
            "look up {key}", "find the value of {key}", "tell me the value of {key}", "use this table to look up {key}"
        ),
    ),
    held_out=with_text("read the value for {key} from the table", "can you tell what goes with {key}?"),
)
BULLETS = Phrasings(
    train=with_text(
        *orders(
            "write this as bullet points",
            "make a bullet list of these words",
            "list these as bullets",
            "put these words in a bullet list",
            "give me bullet points for these",
        )
    ),
    held_out=with_text("turn these into bullet points", "show me the following as a list with bullets"),
)
NUMBERED = Phrasings(
    train=with_text(
        *orders(
            "write this as a numbered list",
            "make a numbered list of these words",
            "number these",
            "list these with numbers",
            "put these words in a numbered list",
        )
    ),
    held_out=with_text("turn these into a numbered list", "show me the following as a list with numbers"),
)
QUOTE = Phrasings(
    train=with_text(
        *orders(
            "put this in quotation marks",
            "write this in double quotes",
            "quote these words",
            "use quotation marks around this",
            "copy this line and put quotation marks around it",
        )
    ),
    held_out=with_text("wrap these words in quotation marks", "show me the following inside double quotes"),
)
CAPITALS = Phrasings(
    train=with_text(
        *orders(
            "write this in capital letters",
            "say this in all capitals",
            "write this in upper case",
            "make this all caps",
            "copy these words in uppercase",
        )
    ),
    held_out=with_text("turn these into capital letters", "show me the following in upper case"),
)
CHOOSE = Phrasings(
    train=(
        *(
            f"{order}: {{options}}"
            for order in orders("choose one", "pick one of these", "answer with one of these only")
        ),
        "Choose one: {options}?",
        "Which one do you like, {options}?",
        "What do you like more, {options}? Say only that.",
        "{options}? Pick one.",
    ),
    held_out=("Which of these do you choose: {options}?", "Decide between {options} and say only that word."),
)
OWN_NAME = Phrasings(
    train=(
        "My name is {name}. {aside}What is my name?",
        "I am {name}. {aside}What is my name?",
        "Hello, I am {name}. {aside}Do you know my name?",
        "Hi! My name is {name}. {aside}Tell me my name.",
        "Call me {name}. {aside}Now say my name.",
        "My friends call me {name}. {aside}What is my name?",
        "I am called {name}. {aside}Who am I?",
    ),
    held_out=(
        "People know me as {name}. {aside}Can you tell me what my name is?",
        "You are speaking with {name}. {aside}Do you remember my name?",
    ),
)
PASSAGE = Phrasings(
    train=(
        "{passage} {question}",
        "{passage}\n{question}",
        "Read this. {passage} {question}",
        "Read this text: {passage}\n{question}",
        "{passage} Question: {question}",
        "{passage} Tell me: {question}",
        "Here is a text. {passage}\n{question}",
        "{question} {passage}",
    ),
    held_out=(
        "Consider this passage: {passage} {question}",
        "Use the passage to answer. {passage}\n{question}",
        "{passage} So my question is: {question}",
    ),
)
POSSESSIONS = (
    ("has", "What does {} have?", "has"),
    ("likes", "What does {} like?", "likes"),
    ("sells", "What does {} sell?", "sells"),
    ("makes", "What does {} make?", "makes"),
    ("saw", "What did {} see?", "saw"),
    ("bought", "What did {} buy?", "bought"),
    ("found", "What did {} find?", "found"),
)
"""What people do with things: the verb of the passage, the question, the verb of the answer."""
FILL = Phrasings(
    train=with_text(
        *orders(
            "fill the gaps with {words}",
            "put {words} into the gaps",
            "complete this with {words}",
            "write this with {words} in the gaps",
        )
    ),
    held_out=with_text("insert the words {words} where a gap is", "the gaps stand for {words}"),
)
GAP_SENTENCES = (
    "The {} is near the {}.",
    "I think of {} and {}.",
    "First comes {} and then {}.",
    "She said {} and he said {}.",
    "There is no {} without {}.",
    "We talked about {} all day.",
    "My word of the day is {}.",
    "Give me {} or {} or {}.",
)


def _words_or_names(sampler: Sampler, count: int) -> str:
    return " ".join(sampler.words(count)) if sampler.choice((True, False)) else _names(sampler, count)


def _names(sampler: Sampler, count: int) -> str:
    return " ".join(sampler.name() for _ in range(count))


def _facts(sampler: Sampler, count: int) -> list[tuple[str, str]]:
    """People, each with a thing of theirs."""
    return [(person, f"{sampler.modifier()} {sampler.noun()}") for person in sampler.people(count)]


def _passage(facts: list[tuple[str, str]], verb: str) -> str:
    return " ".join(f"{person} {verb} {thing}." for person, thing in facts)


def _single_turn(prompt: str, answer: str, check: Check) -> Example:
    return Example(Task([user_message(prompt)], None, (check,)), answer)


def _verbatim(name: str, prompt: str, answer: str) -> Example:
    """A task whose answer must be exactly this text."""
    return _single_turn(prompt, answer, Verbatim(name, answer))


def _sentence(name: str, prompt: str, template: str, value: str) -> Example:
    """A task whose answer is a whole sentence; the value alone is accepted too."""
    answer = template.format(value)
    # A short answer is right too; the whole sentence is what training shows.
    return _single_turn(prompt, answer, AnyOf(name, (answer, value)))
