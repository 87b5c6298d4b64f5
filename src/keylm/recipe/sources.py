"""The settings of each source type. The code that reads the sources is in `keylm.data.sources`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from keylm.recipe.base import Config, PositiveCount
from keylm.recipe.presets import find_preset


class BaseSourceConfig(Config):
    """Settings that all source types share. `type` selects the source type and is required."""

    renamed_keys: ClassVar[dict[str, str]] = {"kind": "type", "missing": "on_missing"}
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {
        "type": {"drills": "repetition", "verified": "constrained-chat"}
    }

    makes_examples: ClassVar[bool] = False
    """Whether prompts with checkable constraints and verified answers can be generated from the source, for `dpo` and
    `grpo`."""
    is_derived: ClassVar[bool] = False
    """Whether the source is made from the documents of other sources in its list, those in `from_sources`."""
    is_divisible: ClassVar[bool] = False
    """Whether the tasks of `prepare` can each read a slice of the source."""
    is_sorted: ClassVar[bool] = False
    """Whether the documents may be sorted, so that a fair sample of them must come from all over the source."""
    is_generated: ClassVar[bool] = False
    """Whether the documents are written by a program, not by people."""
    uses_training_text: ClassVar[bool] = False
    """Whether the source is made from the text of an inner one, without the documents that are held out of it."""
    edits_answers: ClassVar[bool] = False
    """Whether the source edits the answers of another one, so that the two can be compared."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the source: its folder in the run and its row in every table."""
    category: Literal["formal", "casual", "conversational", "knowledge", "typos", "instructions"] = "formal"
    """Category of the source. If a source is missing or exhausted (`on_missing`, `max_epochs`), the others of its
    category take over its weight."""
    weight: float = Field(default=1.0, ge=0)
    """Share of *tokens* in the mixture, relative to the other sources' weights."""
    max_documents: PositiveCount | None = None
    """Read at most this many documents (no limit by default)."""
    max_bytes: PositiveCount | None = None
    """Stop reading after this many bytes of text are kept (no limit by default); a token is four to five bytes."""
    max_epochs: float | None = Field(default=None, gt=0)
    """A source is repeated at most `max_epochs` times; its weight then goes to the others of its category."""
    filters: list[Literal["gopher-quality", "gopher-repetition", "c4", "fineweb"]] = []
    """datatrove's quality filters for plain text, applied in this order. They take from an eighth of the time of
    tokenization (`fineweb`) to twice that time (`gopher-repetition`)."""
    on_missing: Literal["stop", "redistribute"] = "stop"
    """What to do if the source is not available: stop, or give its weight to the others of its category."""
    license: str | None = None
    """License of the text, for the model card."""

    @property
    def parent_names(self) -> list[str]:
        """Names of the sources, in the same list, that this one is made from."""
        return []

    @property
    def uses_all_constraints(self) -> bool:
        """Whether all trained constraints occur in the source, not just the basic ones."""
        return False


def _reject_old_names(source: Any) -> Any:
    """Name what is renamed before pydantic looks for the `type` of the source, which an old recipe calls `kind`."""
    BaseSourceConfig.check_old_names(source)
    return source


class FilesConfig(BaseSourceConfig):
    """Local files of plain text or chat messages: txt, md, html, json, jsonl (also .gz, .zst), csv, tsv or parquet."""

    is_divisible = is_sorted = True

    type: Literal["files"] = "files"
    path: str | list[str]
    """File, folder or glob pattern, or a list of them; relative to the working directory; `~` and `$NAME` are
    expanded."""
    validation_path: str | list[str] | None = None
    """Like `path`: files of your own that are held out, all of them and nothing else, instead of a fraction of the
    documents (`data.validation_fraction`). They are read first, and what occurs in them is not trained on."""
    text_column: str = "text"
    """Column (or JSON key) of plain text."""
    messages_column: str = "messages"
    """Column (or JSON key) of chat messages: a list of `{role, content}`. Pretraining uses it where the text column is
    absent, SFT always. Other forms of conversations are found by themselves; docs/sources.md lists them."""


class HubConfig(BaseSourceConfig):
    """A data set on the Hugging Face hub, read from its parquet files at a pinned revision."""

    renamed_keys: ClassVar[dict[str, str]] = {
        "entry": "preset",
        "keep": "include_rows",
        "drop": "exclude_rows",
        "trees": "message_trees",
    }
    is_divisible = True

    type: Literal["hub"] = "hub"
    preset: str | None = None
    """Name of a data set that `keylm sources` lists: it supplies every field below that is not given."""
    dataset: str
    """Hub id, such as `wikimedia/wikipedia`."""
    config: str | None = None
    """Configuration (subset) of the data set."""
    split: str = "train"
    """Split of the data set."""
    revision: str = "main"
    """Branch, tag or commit; the commit it resolved to is recorded in the manifest."""
    text_column: str = "text"
    """Column of plain text."""
    messages_column: str = "messages"
    """Column of chat messages. Pretraining uses it where the text column is absent, SFT always."""
    system_column: str | None = None
    """Column of the system message, where conversations store it separately (with a dot for a field of a struct)."""
    include_rows: dict[str, str | int | bool] = {}
    """Only rows with these values in these columns are read, such as `{language: English}`."""
    exclude_rows: dict[str, list[str]] = {}
    """Rows with one of these values in these columns are skipped, such as `{body: ["[deleted]"]}`."""
    message_trees: bool = False
    """Whether rows are messages of message trees, as in OASST2. Each tree gives the conversation along its best-ranked
    replies."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        # A preset that is no string is left to the field's own check, which names the mistake.
        if not isinstance(values, dict) or not isinstance(values.get("preset"), str):
            return values
        # In this order: what the recipe says itself wins.
        return {**find_preset(values["preset"]).fields, **values}


class InstalledDocsConfig(BaseSourceConfig):
    """English text of the Python environment: docstrings, help topics, package descriptions. Nothing is downloaded."""

    type: Literal["installed-docs"] = "installed-docs"


class InstructionsConfig(BaseSourceConfig):
    """Generated instructions and small conversations whose answers are correct by construction."""

    renamed_keys: ClassVar[dict[str, str]] = {"kinds": "constraint_set"}
    makes_examples = is_generated = True

    type: Literal["instructions"] = "instructions"
    num_documents: PositiveCount = 20_000
    """Number of conversations to generate."""
    constraint_set: Literal["basic", "all"] = "basic"
    """Which constraints occur: `basic`, the 19 that a model of a few million parameters learns in minutes, or `all`
    62."""

    @property
    def uses_all_constraints(self) -> bool:
        """Whether all trained constraints occur in the source, not just the basic ones."""
        return self.constraint_set == "all"


class TopicsConfig(BaseSourceConfig):
    """Short invented texts of simple sentences, each about a topic of its own, for `backtranslation` to ask for.

    Inside `constrained-chat`, they show the form of an answer in text that a small model can write.
    """

    is_generated = True

    type: Literal["topics"] = "topics"
    num_documents: PositiveCount = 20_000
    """Number of texts, of two to seven sentences, to generate."""


class RepetitionConfig(BaseSourceConfig):
    """Random words, repeated, from which a small model learns early to copy from its context."""

    renamed_keys: ClassVar[dict[str, str]] = {"of": "from_sources"}
    is_derived = is_generated = True

    type: Literal["repetition"] = "repetition"
    from_sources: list[str] = []
    """Names of sources in the same list whose words are used, besides those of the generated instructions."""
    num_documents: PositiveCount = 20_000
    """Number of documents, of about 100 tokens, to generate."""

    @property
    def parent_names(self) -> list[str]:
        """Names of the sources, in the same list, that this one is made from."""
        return self.from_sources


class TyposConfig(BaseSourceConfig):
    """Text with synthetic typos beside the clean text, made from the documents of other sources."""

    renamed_keys: ClassVar[dict[str, str]] = {"of": "from_sources", "pairs": "pair_fraction"}
    is_derived = is_generated = True

    type: Literal["typos"] = "typos"
    from_sources: list[str] = Field(min_length=1)
    """Names of the sources in the same list whose documents are mistyped."""
    num_documents: PositiveCount = 20_000
    """Number of documents to generate (fewer if the sources end earlier)."""
    pair_fraction: float = Field(default=0.5, ge=0, le=1)
    """Fraction of contrastive pairs; the others are mistyped beginnings with their clean continuation."""
    rates: tuple[float, float] = (0.01, 0.12)
    """Minimum and maximum fraction of the characters that are mistyped; each document draws its own rate in between."""

    @property
    def parent_names(self) -> list[str]:
        """Names of the sources, in the same list, that this one is made from."""
        return self.from_sources

    @model_validator(mode="after")
    def _check_rates(self) -> TyposConfig:
        if not 0 <= self.rates[0] <= self.rates[1] <= 0.5:
            raise ValueError("rates must be two rising fractions between 0 and 0.5")
        return self


def _reject_validation_path(source: Any) -> Any:
    """Refuse validation files of a source inside another: what is held out is a part of what that one makes."""
    if isinstance(source, FilesConfig) and source.validation_path:
        raise ValueError("validation_path is only for a source of its own, not for one inside another source")
    return source


class BacktranslationConfig(BaseSourceConfig):
    """Conversations made from plain text: excerpts of real documents are the answers, and rules write the requests.

    Documents of `from_source` that are dropped or held out are not used, nor are conversations among them.
    """

    uses_training_text = True

    type: Literal["backtranslation"] = "backtranslation"
    from_source: Annotated[
        Annotated[FilesConfig | HubConfig | InstalledDocsConfig | TopicsConfig, Field(discriminator="type")],
        BeforeValidator(_reject_old_names),
        AfterValidator(_reject_validation_path),
    ]
    """The source of the plain text."""
    genre: Literal["article", "story", "review", "speech", "situation"] = "article"
    """What the documents are, which decides how people ask for them: `article` is everything that informs. With
    `situation`, one or two sentences are what a user tells before asking, and the answers are short invented texts."""
    max_per_document: PositiveCount = 8
    """Make at most this many conversations of a document."""
    max_words_per_answer: int = Field(default=400, ge=30, le=400)
    """Length of the longest answers. That of excerpts is spread evenly on a logarithmic scale from 12 words up."""
    dressed_fraction: float = Field(default=0.15, ge=0, le=1)
    """Fraction of the excerpts of articles that become a letter, a post, a talk, an invitation, a diary entry, an
    advertisement or a note, with generated names, greetings and closings."""
    text_task_fraction: float = Field(default=0.15, ge=0, le=1)
    """Fraction of the excerpts that become a task about a text in the prompt (quote, continue, summarize, list,
    rewrite), where one fits. Set it to 0 inside `constrained-chat`, which would edit the quotation."""


class ConstrainedChatConfig(BaseSourceConfig):
    """Real conversations with one to five constraints added to the last request.

    The answer is edited to satisfy the constraints, and checked. Conversations whose last answer is not plain prose are
    left out.
    """

    renamed_keys: ClassVar[dict[str, str]] = {"of": "from_source"}
    makes_examples = edits_answers = True

    type: Literal["constrained-chat"] = "constrained-chat"
    from_source: Annotated[
        Annotated[FilesConfig | HubConfig | BacktranslationConfig, Field(discriminator="type")],
        BeforeValidator(_reject_old_names),
        AfterValidator(_reject_validation_path),
    ]
    """The source of the conversations."""

    @property
    def uses_all_constraints(self) -> bool:
        """Whether all trained constraints occur in the source, not just the basic ones."""
        return True


SourceConfig = Annotated[
    Annotated[
        FilesConfig
        | HubConfig
        | InstalledDocsConfig
        | InstructionsConfig
        | TopicsConfig
        | RepetitionConfig
        | TyposConfig
        | BacktranslationConfig
        | ConstrainedChatConfig,
        Field(discriminator="type"),
    ],
    BeforeValidator(_reject_old_names),
]
"""A source of any type; the field `type` selects the class."""


def check_sources(sources: Sequence[BaseSourceConfig]) -> None:
    """Check the sources of a mixture.

    Raises:
        ValueError: two names are equal, all weights are zero, or a derived source names one it cannot be made from.
    """
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError("two sources have the same name")
    if sources and sum(source.weight for source in sources) <= 0:
        raise ValueError("all source weights are zero")
    parents = {source.name for source in sources if not source.is_derived}
    for source in sources:
        if unknown := set(source.parent_names) - parents:
            raise ValueError(
                f"`from_sources` of `{source.name}` names `{min(unknown)}`, which is not a source it can be made from"
            )
