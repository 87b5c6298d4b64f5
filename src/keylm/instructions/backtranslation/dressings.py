"""Forms around real sentences: letters, posts, talks, invitations, diary entries, advertisements and notes."""

from __future__ import annotations

from random import Random

from keylm.common.documents import Document
from keylm.instructions.backtranslation.excerpts import Excerpt
from keylm.instructions.backtranslation.grammar import expand, load_rules
from keylm.instructions.backtranslation.request_wordings import in_a_voice
from keylm.instructions.phrasings import capitalize
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import assistant_message, user_message

FORMS = ("letter", "letter", "letter", "post", "talk", "invitation", "diary", "ad", "note")
"""Letters are what people ask for most."""


def dress(excerpt: Excerpt, rng: Random) -> Document:
    """A conversation that asks for a form, and the excerpt in that form.

    Half of the answers are one paragraph of whole sentences (`Hello Ada! ... Best wishes from Kai.`), to which
    constraints can be added; in the others greeting and signature stand on lines of their own.
    """
    grammar = load_rules("dressings")
    name = rng.choice(FORMS)
    # What is advertised is the same in the request and the answer.
    form, rules = grammar[name], {**grammar["rules"], "medium": [rng.choice(grammar["rules"]["medium"])]}
    to, sender = _people(rng, formal=name == "letter" and rng.random() < 0.4)
    slots = {"to": to, "sender": sender, "subject": excerpt.subject.phrase}
    opening, intro, closing = (
        expand(rng.choice(form[part]), rules, rng).format(**slots) for part in ("openings", "intros", "closings")
    )
    request = in_a_voice(expand(rng.choice(form["requests"]), rules, rng).format(**slots), rng)
    signature = rng.choice(form["signatures"]) if "signatures" in form else ""
    if rng.random() < 0.5:
        parting = f"{signature} from {sender}." if signature else ""
        answer = " ".join(filter(None, [f"{opening}!", intro, *excerpt.sentences, closing, parting]))
    else:
        parting = f"{signature},\n{sender}" if signature else ""
        body = " ".join(filter(None, [capitalize(intro), excerpt.text, closing]))
        answer = "\n\n".join(filter(None, [f"{opening},", body, parting]))
    return Document(messages=(user_message(request), assistant_message(answer)))


def _people(rng: Random, formal: bool) -> tuple[str, str]:
    """Who gets a letter and who writes it."""
    grammar, (to, sender) = load_rules("dressings"), Sampler(rng).people(2)
    if not formal:
        return to, sender
    return f"{rng.choice(grammar['titles'])} {rng.choice(grammar['surnames'])}", sender
