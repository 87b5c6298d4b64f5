"""What an excerpt of a document is about: its title or heading if the excerpt names it, otherwise what recurs in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from keylm.instructions.content_words import STOPWORDS

_WORD = re.compile(r"[^\W\d_][\w'-]*")
_IN_PARENTHESES = re.compile(r"\s*\([^)]*\)")
# Headings that say what part of a text this is, not what it is about.
_POOR_WORDS = """
    summary introduction objectives? exercises? review glossary references? further notes? overview conclusion chapter
    section part book appendix solution example activity questions? problems? abstract motivation rationale
    specification background miscellaneous other preface acknowledge?ments? copyright check thinking connection unit
    contents volume plot cast reception disambiguation outcomes? is not does should
    """.split()  # noqa: SIM905
_POOR_PHRASES = (
    "key (?:terms|concepts|takeaways)|see also|external links|list of|try it|link(?:s|ing)? to",
    "strategy|discussion|significance",
)
# Headings of exercises: an order is no subject.
_ORDER = re.compile(
    r"(?i)(?:multiply|divide|add|subtract|solve|simplify|find|use|using|graph|write|evaluate|identify|determine|apply|"
    r"understand|explain|describe|define|compare|calculate|translate|convert|factor|recognize|choose|make|get|set|"
    r"plan|create|build|know|learn|read|think|take)\b"
)
_POOR = re.compile(rf"(?i)\b(?:{'|'.join((*_POOR_WORDS, *_POOR_PHRASES))})\b|[\d:?!/&;\"]")
_TOO_GENERAL = frozenset(
    """chapter section example examples number time times people person thing things part parts way ways case cases
    year years day days place kind form group set point others fact result results name names word words man woman men
    lot end side hand head eyes face voice moment door room house home night morning film movie story book books
    first second third last next same different important large small great little good better best high several various
    certain major main early late long old young new various common general given known called became become began made
    found said says went came took don didn can't won't i'm it's there's author students student reader value course
    increase decrease incidents incident need needs use users effect effects example sense information criticism
    criticisms idea ideas problem problems question questions reason reasons thought something nothing everything
    everyone anyone someone everybody nobody god lord hour hours minute minutes week weeks month months today tomorrow
    now then thus still also ever never just very too tell told asked ask answered cried replied knew know seen saw
    january february march april may june july august september october november december monday tuesday wednesday
    thursday friday saturday sunday north south east west northern southern eastern western central stage stages scene
    dutch french british american english german spanish italian russian chinese japanese european african asian indian
    roman greek jewish federal women's role roles goal goals offer aspect aspects manner kinds floor respect regard
    thee thou thy thine soft nice poor dear sweet
    every each another though although without despite since well even really almost quite rather perhaps maybe
    however whatever anyway instead together always never often sometimes soon today mad cannot whose whether upon among
    like makes make made gets get seems seem goes gone looks look else enough much little half dear sir lady miss
    having being done going coming looking making taking getting including regarding hundred thousand million billion
    one two three four five six seven eight nine ten twenty yes indeed lots bit anything himself herself themselves
    level type types process system state states country world life work area century amount order change""".split()  # noqa: SIM905
)
_UNFIT = STOPWORDS | _TOO_GENERAL
# A phrase between these is taken for a noun phrase: there is no tagger here.
_PHRASE = re.compile(
    r"(?:^|(?<=[\s(\"]))(?:(?P<article>[Tt]he|[Aa]n?) |"
    r"(?:[Oo]f|[Ii]n|[Ff]or|[Aa]bout|[Bb]y|[Ww]ith|[Aa]nd|[Mm]any|[Mm]ost|[Ss]ome|[Aa]ll|[Ff]rom|[Oo]n) |"
    r"(?<=[.!?\"] )|(?<=^))"
    r"(?P<phrase>[^\W\d_][\w'-]{2,}(?: [^\W\d_][\w'-]{2,}){0,2}?)"
    r"(?= (?:[a-z]+ed|said|came|went|could|would|should|must|did|took|sat|stood|ran|is|are|was|were|has|have|had|can|"
    r"may|will|does|do|of|in|to|and|or|for|that|which|who|on|with|by|as|at)\b"
    r"|[,.;!?])"
)
# A name within a sentence.
_NAME = re.compile(r"(?<=[a-z,;] )(?P<article>(?!))?(?P<phrase>[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,}){0,2})\b")
_FILM = re.compile(
    r"\b(?:(?:romantic|black|dark|teen|action) comedy"
    r"|(?:(?:horror|action|science fiction|war|crime|animated|disney|kids|family|spy) )?(?:film|movie|flick|picture)"
    r"|comedy|thriller|drama|sequel|western|documentary|musical|remake)\b"
)
_ADJECTIVE = re.compile(r"(?:al|ic|ive|ous|ed|able|ing)$")
# An adverb before it, or a participle at its end.
_NO_NOUN = re.compile(r"^\w+ly\b|\w{2}[^e\W]ed$")
_PERSON = re.compile(r"\b(?:born|[Hh]e|[Ss]he|[Hh]is|[Hh]er)\b")


@dataclass(frozen=True)
class Subject:
    """What a text is about."""

    phrase: str
    """As it stands in a sentence, with an article if it has one: `the cell cycle`."""
    aspect: str = ""
    """The part of it that the text is about, such as `early life`; empty if there is no part."""
    is_person: bool = False
    """Whether it is a person."""
    is_caption: bool = False
    """Whether the author named it so, in a title or heading."""

    @property
    def bare(self) -> str:
        """The phrase without its article."""
        return re.sub(r"^(?:the|an?) ", "", self.phrase, flags=re.IGNORECASE)

    @property
    def full(self) -> str:
        """The phrase, with its aspect if there is one."""
        return f"the {self.aspect} of {self.phrase}" if self.aspect else self.phrase


def find_subject(title: str, heading: str, sentences: Sequence[str]) -> Subject | None:
    """The subject of an excerpt, named in its first two sentences; None if it has no good one."""
    opening, text = " ".join(sentences[:2]), " ".join(sentences)
    name, part = _caption(title), _caption(heading)
    is_person = 2 <= len(name.split()) <= 4 and name.istitle() and _PERSON.search(text) is not None
    if name and names_subject(name.split()[-1] if is_person else name, opening):
        phrase = name if is_person else _as_in_text(name, text)
        # An aspect that is a name itself would make no sense of `the ... of`.
        is_part = part[1:].islower() and len(part.split()) <= 3 and not _ADJECTIVE.search(part)
        has_aspect = is_part and not names_subject(name, part)
        return Subject(phrase, part.lower() if has_aspect else "", is_person, is_caption=True)
    # Under a title, a single word may be any part of it (`Filming`), unless the text keeps to it.
    is_own_subject = not title or " " in part or text.lower().count(part.lower()) > 2
    if part and is_own_subject and names_subject(part, opening):
        phrase = _as_in_text(part, text)
        # Headings have capitals that names have, too.
        return Subject(phrase if " " not in part or _has_name(part, text) else phrase.lower(), is_caption=True)
    # Articles with a title name their subjects at once, and hardly any other that is worth a question.
    return _recurring(sentences[0], text, nouns=False) if title else _recurring(opening, text, nouns=True)


def find_film(sentences: Sequence[str]) -> Subject | None:
    """The type of film that the first two sentences of a review speak of, such as `a comedy`."""
    film = _FILM.search(" ".join(sentences[:2]))
    return Subject(f"{'an' if film[0][0] in 'aeiou' else 'a'} {film[0]}") if film else None


def may_be_subject(phrase: str) -> bool:
    """Whether a phrase of words between spaces could be a subject: none is too general, and it looks like a noun."""
    return not any(word.lower() in _UNFIT for word in phrase.split()) and not _NO_NOUN.search(phrase)


def names_subject(subject: str, text: str) -> bool:
    """Whether a text has every content word of a subject."""
    words = {_stem(word) for word in _WORD.findall(text.lower())}
    parts = [_stem(word) for word in _WORD.findall(subject.lower()) if len(word) > 2 and word not in STOPWORDS]
    return bool(parts) and words.issuperset(parts)


def _caption(heading: str) -> str:
    """A title or heading without what stands in parentheses; empty if it names no subject."""
    caption = _IN_PARENTHESES.sub("", heading).strip(" .").removeprefix("The ").removeprefix("An ").removeprefix("A ")
    if caption.isupper():
        caption = caption.capitalize()
    is_subject = not _POOR.search(caption) and not _ORDER.match(caption)
    return caption if is_subject and 2 < len(caption) <= 50 and len(caption.split()) <= 6 else ""


def _as_in_text(name: str, text: str) -> str:
    """A title with the article that it has in the text, in lower case unless it is a name."""
    before, _, rest = text.lower().partition(name.lower())
    article = before.split()[-1] if rest and before.strip() else ""
    phrase = name.lower() if _is_common(name, text) else name
    if article in ("the", "a", "an"):
        return f"{article} {phrase}"
    # "Astronomer" is about astronomers.
    return f"{phrase}s" if phrase.islower() and re.search(rf"\b{re.escape(phrase)}s\b", text.lower()) else phrase


def _is_common(title: str, text: str) -> bool:
    """Whether a title is no name: it or its last word is in lower case in a text that gives none of it a capital."""
    words = title.split()
    if len(words) == 1 or title.lower() in text:
        return title.lower().removesuffix("s") in text
    return (title[1:].islower() or f"{words[-1].lower()} " in text) and not _has_name(title, text)


def _has_name(title: str, text: str) -> bool:
    """Whether a word of a title has a capital letter within a sentence of the text."""
    words = (word for word in title.split() if word[0].isupper() and word.lower() not in STOPWORDS)
    return any(re.search(rf"[a-z,] {re.escape(word)}\b", text) for word in words)


def _recurring(opening: str, text: str, nouns: bool) -> Subject | None:
    """The name or noun phrase of the opening that recurs most often in the text, longer ones first.

    Args:
        opening: where it stands.
        text: where it recurs.
        nouns: whether a single common noun will do.
    """
    best, best_score = None, 0.0
    lower = text.lower()
    for use in (*_PHRASE.finditer(opening), *_NAME.finditer(opening)):
        phrase, article = use["phrase"], (use["article"] or "").lower()
        words = phrase.split()
        is_name = _is_name(phrase, text)
        if not may_be_subject(phrase) or _is_part_of_name(use, opening):
            continue
        is_noun = len(words) == 1 and not is_name
        # One common noun with `the` is known from what went before; with `a` it is new.
        if (is_noun and (not nouns or article == "the")) or (is_name and article in ("a", "an")):
            continue
        count = lower.count(phrase.lower())
        if is_name:
            article = "the" if lower.count(f"the {phrase.lower()}") > count / 2 else ""
        score = count * len(words) ** 1.2 * (1 if is_noun else 1.5)
        if count >= (3 if is_noun or (len(words) == 1 and not nouns) else 2) and score > best_score:
            phrase = phrase if is_name or not phrase[1:].islower() else phrase.lower()
            best, best_score = Subject(f"{article} {phrase}".strip()), score
    return best


def _is_name(phrase: str, text: str) -> bool:
    """Whether a phrase that begins with a capital is a name, and not just the beginning of a sentence."""
    if phrase[0].islower() or phrase.lower() in text:
        return False
    within = re.search(rf"[a-z,] {re.escape(phrase)}\b", text) is not None
    return within or (phrase.istitle() and not phrase.endswith("s"))


def _is_part_of_name(use: re.Match[str], sentence: str) -> bool:
    """Whether another capitalized word stands before or after a capitalized phrase, maybe with `of` in between."""
    before = sentence[: use.start()].removesuffix(" of ").split()
    goes_on = re.match(r" (?:of|and|for) (?:the )?[A-Z]", sentence[use.end() :]) is not None
    return use["phrase"][0].isupper() and (goes_on or (len(before) > 1 and before[-1][0].isupper()))


def _stem(word: str) -> str:
    """A word without the ending of a plural or possessive."""
    return word.removesuffix("'s").rstrip("s").removesuffix("ie").removesuffix("y")
