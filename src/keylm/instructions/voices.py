"""Voices: how one user writes, from careful to sloppy, and what they say around a request.

A voice is drawn once per prompt, so that one user speaks in one voice. It changes only templates, before their slots
are filled: the parameters of constraints stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from keylm.instructions.phrasings import capitalize
from keylm.instructions.sampler import Sampler
from keylm.instructions.wordings import QUOTES, choose_alternatives


@dataclass(frozen=True)
class Voice:
    """The habits of one user."""

    substitutions: tuple[tuple[str, str], ...] = ()
    """Patterns and what the user writes instead."""
    is_lowercase: bool = False
    """Whether the user writes without capitals."""
    politeness: tuple[str, ...] = ("",)
    """What can stand before an imperative."""
    request_forms: tuple[str, ...] = ("{}",)
    """Ways to ask for what an imperative asks for; those that end in `?` are questions."""
    greetings: tuple[str, ...] = ("",)
    closings: tuple[str, ...] = ("",)
    context_share: float = 0.3
    """How often the user tells something about themselves."""
    final_marks: tuple[str, ...] = (".",)
    """What can stand at the end of a statement."""
    quote: str = '"{}"'
    """How the user quotes a word."""

    def style(self, template: str) -> str:
        """The template as this user writes it."""
        for pattern, replacement in self.substitutions:
            template = re.sub(pattern, replacement, template)
        return template.lower() if self.is_lowercase else template

    def start(self, text: str) -> str:
        """The text with a capital first letter, if this user writes any."""
        return text if self.is_lowercase else capitalize(text)


_CONTRACTIONS = ((r"\bdo not\b", "don't"), (r"\bcannot\b", "can't"))
_FULL_FORMS = (
    (r"\bcan't\b", "cannot"),
    (r"\bwon't\b", "will not"),
    (r"n't\b", " not"),
    (r"\bI'm\b", "I am"),
    (r"(?<=[a-z])'re\b", " are"),
    (r"(?<=[Ia-z])'d\b", " would"),
    (r"(?<=[Ia-z])'ve\b", " have"),
    (r"(?<=[Ia-z])'ll\b", " will"),
    (r"\b([Ii]t|[Tt]hat|[Tt]here|[Ww]hat)'s\b", r"\1 is"),
    (r"(\{it\}) (?:must|should|has to|needs to)\b", r"\1 shall"),
)
_SLOPPY = (
    (r"(?i)\bplease\b", "pls"),
    (r"(?i)\bwith\b", "w/"),
    (r"(?i)\bwithout\b", "w/o"),
    (r"(?i)\byou\b", "u"),
    (r"(?i)\byour\b", "ur"),
    (r"(?i)\band\b", "&"),
    (r"(?i)\bmaximum\b", "max"),
    (r"(?i)\bminimum\b", "min"),
    (r"(?i)\bsomething\b", "sth"),
    (r"(?i)\bgive me\b", "gimme"),
    (r"(?i)\bwant to\b", "wanna"),
    (r"(?i)\bbecause\b", "cuz"),
    # Not after a slot, as in `{letter}'s`.
    (r"(?<=[A-Za-z])'(?=(?:t|s|d|m|re|ve)\b)", ""),
)

PLAIN = Voice(
    _CONTRACTIONS,
    politeness=("", "", "Please "),
    request_forms=("{}", "{}", "{}", "Can you {}?", "I need you to {}."),
    closings=("", "", "", "Thanks."),
)
POLITE = Voice(
    politeness=("Please ", "Please ", "If possible, ", "I'd ask you to ", "Could you please "),
    request_forms=(
        "Please {}.",
        "Could you please {}?",
        "Would you {}?",
        "I'd like you to {}.",
        "Could you {}?",
        "Would you mind helping me? I'd like you to {}.",
    ),
    greetings=("", "Hello,", "Hello!", "Hi there,", "Good morning,", "Good evening,"),
    closings=("", "", "Thank you!", "Thanks in advance.", "Many thanks!", "Thank you very much."),
    context_share=0.5,
)
FORMAL = Voice(
    _FULL_FORMS,
    politeness=("Please ", "Kindly ", "Kindly ", "I would ask you to ", "You are asked to "),
    request_forms=("Please {}.", "Kindly {}.", "I would like you to {}.", "I would ask you to {}.", "{}"),
    greetings=("", "", "Dear assistant,", "Good day.", "Dear Sir or Madam,", "To whom it may concern:"),
    closings=("", "", "Thank you for your help.", "With kind regards", "I look forward to your reply."),
    context_share=0.4,
)
CHATTY = Voice(
    _CONTRACTIONS,
    politeness=("", "Please ", "Oh, and ", "And hey, ", "Just "),
    request_forms=("{}", "Can you {}?", "Could you {}?", "I was hoping you could {}.", "Would you be so kind and {}?"),
    greetings=("", "Hey!", "Hi!", "Hiya!", "Hey there!", "Hello again!", "Ok, so..."),
    closings=("", "Thanks!", "Thanks a lot!!", "Thank you :)", "Thanks, you're the best!", "Cheers!", "Can't wait!"),
    context_share=0.6,
    final_marks=(".", ".", "!"),
)
SLOPPY = Voice(
    _SLOPPY,
    is_lowercase=True,
    politeness=("", "please ", "just "),
    request_forms=("{}", "{}", "can you {}?", "could you {}", "please {}", "need you to {}", "i want you to {}"),
    greetings=("", "", "hey", "hi", "yo", "hello", "hey,", "ok so"),
    closings=("", "", "", "thanks", "thx", "ty!", "thank you", "thx a lot :)"),
    context_share=0.35,
    final_marks=(".", "", "", "!!"),
)
TERSE = Voice(request_forms=("{}",), context_share=0.0)

# By how often each is drawn.
_VOICES = (*3 * [PLAIN], *2 * [POLITE], FORMAL, *2 * [CHATTY], *2 * [SLOPPY], TERSE)

CONTEXTS = (
    "I [run|have|own] a [small|little|tiny] [museum|bakery|bookshop|garden center|café|bike shop|toy store|hotel].",
    "[My|Our] [daughter|son|niece|nephew|neighbor|boss|aunt|grandson] [asked me about this|wants to know this].",
    "For [my|our] [daughter's|son's|niece's|students'] [school project|homework|poster|presentation|quiz].",
    "It's for [the newsletter|the website|the notice board|the leaflet] of our [choir|chess club|school|library].",
    "It's for the [magazine|program|web page] of our [rowing club|allotment club|parish|theater group|village].",
    "I'm [a teacher|a nurse|a retired engineer|a tour guide|a librarian|a student|a bus driver|an editor].",
    "I work [at a library|at a small radio station|in a school|for a local paper|in a care home|at a campsite].",
    "We are a [team|group|class] of [four|six|ten|twelve|twenty].",
    "We're putting together [a booklet|an exhibition|a pub quiz|a podcast|a slide show] for [our open day|our club].",
    "I'm [preparing|working on] [a talk|a quiz night|a presentation|a lesson|an exam|a radio show].",
    "[I'll|I'm going to|I want to] [read it out|hang it up|share it|pin it up] at [our next meeting|the office|work].",
    "My [grandmother|grandfather|mother|father|uncle|roommate|sister] [is curious|would love to know|keeps asking].",
    "I [promised|told] my [colleagues|class|kids|friends|team] I'd [have this by Monday|look into it|find out].",
    "[Something|A little something] for [a birthday card|the school paper|our group chat|my blog|our intranet].",
    "I was [talking|chatting] with [a friend|my brother|my neighbor|a colleague] [last night|at lunch] and it came up.",
    "I'm [learning English|new here|back at school|tired of searching the web|on the train right now].",
    "[Background|A bit of background]: I [am a beginner|know nothing about it|teach ten-year-olds|write for a paper].",
)
"""Sentences about the user that say nothing about a constraint."""


def draw_voice(sampler: Sampler) -> Voice:
    """Draw a voice, with some of its habits and one way of quoting."""
    voice = sampler.choice(_VOICES)
    habits = [substitution for substitution in voice.substitutions if not voice.is_lowercase or sampler.chance(0.5)]
    return replace(voice, substitutions=tuple(habits), quote=sampler.choice(QUOTES))


def surround(body: str, voice: Voice, sampler: Sampler) -> str:
    """Put a greeting, something about the user and a closing around a request, if this user does so."""
    greeting, closing = (voice.style(sampler.choice(parts)) for parts in (voice.greetings, voice.closings))
    context = ""
    if sampler.chance(voice.context_share):
        context = voice.style(choose_alternatives(sampler.choice(CONTEXTS), sampler))
    parts = [greeting, context, body] if sampler.chance(0.7) else [greeting, body, context]
    return join_parts([*parts, closing], sampler.choice((" ", " ", "\n")))


def join_parts(parts: Sequence[str], separator: str) -> str:
    """Join the parts that are not empty; after one without a final mark a new line begins."""
    text = ""
    for part in filter(None, parts):
        if text:
            text += separator if text[-1] in ".!?)" else "\n"
        text += part
    return text
