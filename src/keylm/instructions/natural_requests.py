"""Requests under constraints as people write them: one voice, one arrangement, natural wordings.

request      "Tell me about honey bees."
constraints  MaxWords(60), NoCommas()
prompts      "Can you tell me about honey bees in under 61 words and without commas?"
             "hey\\ntell me about honey bees (no commas, max 60 words)"
             "I run a small museum. Tell me about honey bees. Commas confuse our software, so leave them out. ..."

`compose_natural_prompt` is a pure function of the request, the constraints and the state of the sampler.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keylm.instructions.constraints.base import Constraint
from keylm.instructions.constraints.start_end import RepeatRequest
from keylm.instructions.sampler import Sampler
from keylm.instructions.voices import TERSE, Voice, draw_voice, join_parts, surround
from keylm.instructions.wordings import choose_alternatives, wording_slots

MAX_STYLED_LENGTH = 200
"""Longer requests, in characters, carry a text to work on: they are left as they are."""
HEADERS = (
    "Rules:",
    "Constraints:",
    "Requirements:",
    "Guidelines:",
    "Conditions:",
    "A few rules:",
    "Please note:",
    "Please stick to these:",
    "What matters to me:",
    "Some things to keep in mind:",
    "This is important:",
    "The following applies:",
)
LABELS = ("Line", "The line", "Request", "My request", "Question", "My question", "Task", "Prompt", "Sentence", "Topic")
"""Names for a request that is to be repeated."""
CARRIERS = ("Answer", "Reply", "Respond", "Explain it", "Give me the answer", "I'd like the answer", "Tell me")
"""Sentences that modifiers follow where the request itself is a question."""

_IMPERATIVE = re.compile(
    r"(?:write|tell|explain|describe|give|list|summarize|define|compose|draft|create|name|show|outline|discuss|invent|make"
    r"|suggest|compare|introduce|retell|present|sketch|imagine|help)\b",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"(?:what|who|whom|whose|where|when|why|how|which|is|are|was|were|do|does|did|can|could|would|will|should|have|has)\b",
    re.IGNORECASE,
)
_FRONTABLE = re.compile(r"(?:in|as|using|with|without|within|w/|w/o)\b", re.IGNORECASE)
_FINISHED = re.compile(r"[.!?:][\"')]*$")


@dataclass(frozen=True)
class _Request:
    """A request in its user's voice: `stem` without its final mark."""

    stem: str
    mark: str
    takes_modifiers: bool
    """Whether it is a single statement or imperative that modifiers can follow."""

    @property
    def text(self) -> str:
        return self.stem + self.mark


@dataclass(frozen=True)
class _Writer:
    """Words constraints in one voice."""

    voice: Voice
    sampler: Sampler

    def word(self, constraint: Constraint, form: str) -> str:
        """One of the constraint's wordings of a grammatical form, with its slots filled."""
        template = choose_alternatives(self.sampler.choice(getattr(constraint.wordings(), form)), self.sampler)
        styled = self.voice.style(template)
        return styled.format(**wording_slots(constraint, self.sampler, self.voice.quote))

    def start(self, text: str, constraint: Constraint) -> str:
        """Capitalize a text unless it begins with a parameter."""
        parameters = [str(value) for value in vars(constraint).values()]
        return text if text.startswith(tuple(parameters)) else self.voice.start(text)

    def all(self, constraints: Sequence[Constraint], form: str) -> list[str]:
        """A wording of each constraint. What ends in a quotation or a list comes last."""
        wordings = [self.word(constraint, form) for constraint in constraints]
        return sorted(wordings, key=lambda wording: ":" in wording or wording[-1] in "\"'.)")

    def polite(self, clause: str) -> str:
        """The clause as an imperative sentence without its final mark."""
        return self.voice.start(self.voice.style(self.sampler.choice(self.voice.politeness)) + clause)

    def instruction(self, constraint: Constraint) -> str:
        """A sentence that asks for one constraint."""
        form = "notes" if self.voice is TERSE else self.sampler.choice(("sentences", "sentences", "clauses", "notes"))
        text = self.word(constraint, form)
        return self.finish(self.polite(text) if form == "clauses" else self.start(text, constraint))

    def finish(self, text: str) -> str:
        """The text with a final mark of this voice, unless it has one or none is needed."""
        return _close(text, self.sampler.choice(self.voice.final_marks))


def compose_natural_prompt(request: str, constraints: Sequence[Constraint], sampler: Sampler) -> str:
    """Ask for a request under constraints as one user would.

    Args:
        request: The request, without constraints. It is part of the prompt without a change if it has several lines or
            is to be repeated; otherwise its form of politeness, its final mark and the case of its letters may change.
        constraints: At least one, of types that have wordings.
        sampler: Draws the voice, the arrangement and the wordings.
    """
    voice = draw_voice(sampler)
    writer = _Writer(voice, sampler)
    is_repeated = any(isinstance(constraint, RepeatRequest) for constraint in constraints)
    if is_repeated or "\n" in request or len(request) > MAX_STYLED_LENGTH:
        arrange_around = sampler.choice(_AROUND_REPEATED if is_repeated else _AROUND)
        return arrange_around(_Request(request, "", takes_modifiers=False), constraints, writer)
    styled = _style_request(request, writer)
    arrange = sampler.choice((_modifiers, _modifiers, _modifiers, *_ARRANGEMENTS))
    return surround(arrange(styled, constraints, writer), voice, sampler)


def _style_request(request: str, writer: _Writer) -> _Request:
    """The request as the user of this voice puts it."""
    voice, sampler = writer.voice, writer.sampler
    stem, mark = request.rstrip(" .?!"), "?" if request.endswith("?") else "."
    if _IMPERATIVE.match(stem) and mark == ".":
        asked = voice.style(sampler.choice(voice.request_forms)).format(stem[0].lower() + stem[1:])
        stem, mark = asked.rstrip(".?"), "?" if asked.endswith("?") else "."
    if voice.is_lowercase:
        stem = stem.lower()
    takes_modifiers = not re.search(r"[.?!:]\s", stem) and not (mark == "?" and _IS_REAL_QUESTION.match(stem))
    final = (
        mark if mark == "?" and not voice.is_lowercase else sampler.choice(voice.final_marks) if mark == "." else "?"
    )
    return _Request(voice.start(stem), final, takes_modifiers)


# A question that asks for an action can take modifiers: `Could you explain it in three sentences?`
_IS_REAL_QUESTION = re.compile(rf"(?!(?:can|could|would|will) (?:you|u)\b){_QUESTION.pattern}", re.IGNORECASE)


def _modifiers(request: _Request, constraints: Sequence[Constraint], writer: _Writer) -> str:
    """`Tell me about bees in under 60 words and without commas.` Beyond three, instructions follow."""
    first, others = constraints[:3], constraints[3:]
    joined = _enumerate(writer.all(first, "modifiers"))
    if request.takes_modifiers:
        separator = writer.sampler.choice((" ", " ", ", "))
        asked = [_close(f"{request.stem}{separator}{joined}", request.mark)]
    else:
        carrier = writer.voice.style(writer.sampler.choice(CARRIERS))
        asked = [request.text, writer.finish(f"{writer.voice.start(carrier)} {joined}")]
    return join_parts([*asked, *map(writer.instruction, others)], " ")


def _fronted(request: _Request, constraints: Sequence[Constraint], writer: _Writer) -> str:
    """`In under 60 words and without commas, tell me about bees.`"""
    first, others = constraints[:2], constraints[2:]
    joined = _enumerate(writer.all(first, "modifiers"))
    if not _FRONTABLE.match(joined) or _FINISHED.search(joined):
        return _modifiers(request, constraints, writer)
    is_imperative = _IMPERATIVE.match(request.stem)
    stem = f", {request.stem[0].lower()}{request.stem[1:]}" if is_imperative else f": {request.stem}"
    asked = f"{writer.voice.start(joined)}{stem}{request.mark}"
    return join_parts([asked, *map(writer.instruction, others)], " ")


def _instructions(request: _Request, constraints: Sequence[Constraint], writer: _Writer) -> str:
    """The request, then a sentence for each constraint."""
    separator = writer.sampler.choice((" ", " ", "\n"))
    return join_parts([request.text, *map(writer.instruction, constraints)], separator)


def _instructions_first(request: _Request, constraints: Sequence[Constraint], writer: _Writer) -> str:
    """A sentence for each constraint, then the request."""
    return join_parts([*map(writer.instruction, constraints), request.text], writer.sampler.choice((" ", "\n")))


def _labeled(request: _Request, constraints: Sequence[Constraint], writer: _Writer) -> str:
    """The request in quotation marks, or behind a name for it, so that it is clear what is to be repeated."""
    instructions = join_parts([*map(writer.instruction, constraints)], " ")
    if writer.sampler.chance(0.4):
        return f'"{request.text}"\n\n{instructions}'
    label = writer.voice.style(writer.sampler.choice(LABELS))
    return f"{instructions}\n{label}: {request.text}"


def _clauses(request: _Request, constraints: Sequence[Constraint], writer: _Writer) -> str:
    """`Tell me about bees. Please leave out commas and keep it under 60 words.`"""
    joined = writer.polite(_enumerate(writer.all(constraints, "clauses")))
    return join_parts([request.text, writer.finish(joined)], " ")


def _rules(request: _Request, constraints: Sequence[Constraint], writer: _Writer) -> str:
    """The request, then a list of rules under a header."""
    if len(constraints) == 1:
        return _notes(request, constraints, writer)
    sampler = writer.sampler
    form = sampler.choice(("notes", "clauses"))
    rules = [writer.word(constraint, form) for constraint in constraints]
    if sampler.chance(0.5):
        rules = [writer.start(rule, constraint) for rule, constraint in zip(rules, constraints, strict=True)]
    mark = sampler.choice(("- {rule}", "* {rule}", "{number}. {rule}", "{number}) {rule}", "{rule}"))
    lines = [mark.format(number=number, rule=rule) for number, rule in enumerate(rules, 1)]
    header = writer.voice.style(sampler.choice(HEADERS))
    return "\n".join((request.text, *[""] * sampler.number(0, 1), header, *lines))


def _parentheses(request: _Request, constraints: Sequence[Constraint], writer: _Writer) -> str:
    """`Tell me about bees (no commas, max 60 words).`"""
    return f"{request.stem} ({', '.join(writer.all(constraints, 'notes'))}){request.mark}"


def _notes(request: _Request, constraints: Sequence[Constraint], writer: _Writer) -> str:
    """`Tell me about bees. No commas. Max 60 words.`, or the notes on a line of their own."""
    if writer.sampler.chance(0.5):
        return f"{request.text}\n{', '.join(writer.all(constraints, 'notes'))}"
    notes = (writer.start(writer.word(constraint, "notes"), constraint) for constraint in constraints)
    return join_parts([request.text, *map(writer.finish, notes)], " ")


_Arrangement = Callable[[_Request, Sequence[Constraint], _Writer], str]
_ARRANGEMENTS: tuple[_Arrangement, ...] = (
    _fronted,
    _instructions,
    _instructions,
    _instructions,
    _instructions_first,
    _clauses,
    _clauses,
    _rules,
    _parentheses,
    _notes,
)
_AROUND: tuple[_Arrangement, ...] = (_instructions, _instructions, _instructions_first, _clauses, _rules, _notes)
"""Those that leave the request as it is."""
_AROUND_REPEATED = (*_AROUND, _labeled, _labeled, _labeled)
"""Those for a request that is to be repeated."""


def _enumerate(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _close(text: str, mark: str) -> str:
    """The text with a final mark, unless it ends in a quoted sentence or in a mark that the user asks for."""
    return text if _FINISHED.search(text) or not re.search(r"[\w\"')]$", text) else text + mark
