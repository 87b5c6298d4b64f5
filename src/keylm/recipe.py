"""The recipe: one typed YAML file that says everything about a model.

Names follow transformers where transformers has them. Every field carries its unit and its reason; `docs/recipe.md`
is generated from them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from keylm.data import registry
from keylm.errors import UserError


def _parse_count(value: Any) -> Any:
    """Accept `18e9` and `"2e6"` where an integer is meant: YAML reads the first as a float, the second as text."""
    if isinstance(value, str):
        try:
            value = float(value.replace("_", ""))
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(_parse_count), Field(ge=0)]
PositiveCount = Annotated[int, BeforeValidator(_parse_count), Field(gt=0)]


def _check_sources(sources: list[Any]) -> None:
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError("two sources have the same name")
    if sum(source.weight for source in sources) <= 0:
        raise ValueError("all source weights are zero")
    made = [source for source in sources if isinstance(source, MADE_OF_OTHERS)]
    bases = set(names) - {source.name for source in made}
    for source in made:
        if unusable := sorted(set(source.of) - bases):
            raise ValueError(f"`of` of `{source.name}` names `{unusable[0]}`, which is no source to be made of")


def _check_phases(key: str, phases: list[Any], sources: list[Any]) -> None:
    known = {source.name for source in sources}
    for phase in phases:
        unknown = sorted(set(phase.weights) - known)
        if unknown:
            raise ValueError(f"{key}.phases names `{unknown[0]}`, which is not one of its sources")
        if min(phase.weights.values(), default=0) < 0:
            raise ValueError(f"{key}.phases has a negative weight")


class Part(BaseModel):
    """Base of every section of a recipe: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Model(Part):
    """The decoder's sizes, named as in transformers' `Qwen3Config`."""

    vocab_size: PositiveCount = 12020
    """Tokens in the vocabulary, control tokens included; the tokenizer is trained to exactly this size."""
    hidden_size: PositiveCount = 512
    """Width of the residual stream."""
    num_hidden_layers: PositiveCount = 24
    """Number of decoder layers."""
    num_attention_heads: PositiveCount = 8
    """Query heads per layer."""
    num_key_value_heads: PositiveCount = 2
    """Key/value heads per layer; each serves `num_attention_heads / num_key_value_heads` query heads."""
    head_dim: PositiveCount = 64
    """Width of one head. Even, because rotary embedding turns pairs."""
    intermediate_size: PositiveCount = 1280
    """Width of the SwiGLU feed-forward layer."""
    max_position_embeddings: PositiveCount = 2048
    """Context length, in tokens."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary embedding's wavelengths."""
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    """Added to the mean square in every RMSNorm."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Model:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        if self.head_dim % 2:
            raise ValueError("head_dim must be even")
        if not 256 + 3 <= self.vocab_size <= 65_536:
            raise ValueError("vocab_size must lie between 259 (bytes and control tokens) and 65,536 (uint16)")
        return self


class Tokenizer(Part):
    """How the byte-level BPE is trained."""

    pre_tokenizer: Literal["gpt-2", "qwen2", "llama-bpe"] = "qwen2"
    """The split regex, by the name under which llama.cpp knows it."""
    sample_bytes: PositiveCount = 100_000_000
    """Bytes of text the vocabulary is learned from, taken from the sources in proportion to their weights."""


class _Source(Part):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the source: its folder in the run and its row in every table."""
    category: Literal["formal", "casual", "conversational", "knowledge", "typos", "instructions"] = "formal"
    """Which share of the published mixture the source belongs to."""
    weight: float = Field(default=1.0, ge=0)
    """Share of *tokens* in the mixture, relative to the other sources' weights."""
    max_documents: PositiveCount | None = None
    """Read at most this many documents (no limit by default)."""
    max_bytes: PositiveCount | None = None
    """Stop reading once so many bytes of text are kept (no limit by default); a token is four to five bytes."""
    max_epochs: float | None = Field(default=None, gt=0)
    """Train at most so many times on each document; after that the weight goes to the others of the category."""
    filters: list[Literal["gopher-quality", "gopher-repetition", "c4", "fineweb"]] = []
    """Quality filters for plain text, by datatrove, in this order; they cost from an eighth of the encoding (`fineweb`)
    to twice as much (`gopher-repetition`)."""
    missing: Literal["stop", "redistribute"] = "stop"
    """What to do where the source cannot be had: stop, or give its weight to the others of its category."""
    license: str | None = None
    """Licence of the text, for the model card."""


class Files(_Source):
    """Local files: txt, md, jsonl, jsonl.gz, jsonl.zst or parquet, of plain text or of chat messages."""

    kind: Literal["files"] = "files"
    path: str | list[str]
    """File, folder or glob pattern, or a list of them; relative to the working folder; `~` and `$NAME` are
    expanded."""
    text_column: str = "text"
    """Column (or JSON key) of plain text."""
    messages_column: str = "messages"
    """Column (or JSON key) of chat messages: a list of `{role, content}`; used where the text column is absent."""


class Hub(_Source):
    """A data set on the Hugging Face hub, read by parquet files at a pinned revision."""

    kind: Literal["hub"] = "hub"
    entry: str | None = None
    """Name of an entry that `keylm sources` lists: it fills in every field below that is not given."""
    dataset: str
    """Hub id, such as `wikimedia/wikipedia`."""
    config: str | None = None
    """Configuration (subset) of the data set."""
    split: str = "train"
    """Split of the data set."""
    revision: str = "main"
    """Branch, tag or commit; the commit it stood for is recorded in the manifest."""
    text_column: str = "text"
    """Column of plain text."""
    messages_column: str = "messages"
    """Column of chat messages; used where the text column is absent."""
    system_column: str | None = None
    """Column of the system's message, where conversations keep it apart (with a dot for a part of a struct)."""
    keep: dict[str, str | int | bool] = {}
    """Only rows with these values in these columns are read, such as `{language: English}`."""
    drop: dict[str, list[str]] = {}
    """Rows with one of these values in these columns are not read, such as `{body: ["[deleted]"]}`."""
    trees: bool = False
    """The rows are messages of trees, as in OASST2: each tree gives the conversation of its best-ranked replies."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_entry(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("entry") is None:
            return values
        return {**registry.find(values["entry"]).fields, **values}


class InstalledDocs(_Source):
    """The English of the Python environment itself: docstrings, topics and package descriptions. Needs no download."""

    kind: Literal["installed-docs"] = "installed-docs"


class Instructions(_Source):
    """Generated instructions and small conversations whose answers are checked by construction."""

    kind: Literal["instructions"] = "instructions"
    num_documents: PositiveCount = 20_000
    """How many conversations are generated."""
    kinds: Literal["basic", "all"] = "basic"
    """Kinds of constraints asked for: `basic`, the 19 that a model of a few million parameters learns in minutes, or
    `all` 62."""


def _default_text() -> list[Source]:
    return [InstalledDocs(name="installed-docs")]


def _default_instructions() -> list[Source]:
    return [Instructions(name="instructions")]


class Drills(_Source):
    """Random words said over and over: they teach a small model early to copy from its context."""

    kind: Literal["drills"] = "drills"
    of: list[str] = []
    """Names of sources, in the same list, whose words are drilled beside those of the generated instructions."""
    num_documents: PositiveCount = 20_000
    """How many documents of about 100 tokens are generated."""


class Typos(_Source):
    """Mistyped text beside what was meant, made from the documents of other sources."""

    kind: Literal["typos"] = "typos"
    of: list[str] = Field(min_length=1)
    """Names of the sources, in the same list, whose documents are mistyped."""
    num_documents: PositiveCount = 20_000
    """How many documents are made (fewer where the sources end earlier)."""
    pairs: float = Field(default=0.5, ge=0, le=1)
    """Share of contrastive pairs; the others are mistyped beginnings with their clean continuation."""
    rates: tuple[float, float] = (0.01, 0.12)
    """Least and greatest share of the characters that are mistyped; each document draws its own between them."""

    @model_validator(mode="after")
    def _rates_fit(self) -> Typos:
        if not 0 <= self.rates[0] <= self.rates[1] <= 0.5:
            raise ValueError("rates must be two rising shares between 0 and 0.5")
        return self


MADE_OF_OTHERS = (Drills, Typos)
"""Kinds of sources that are made of the documents of other sources of their list, which `of` names."""


class Verified(_Source):
    """Real exchanges with one to five constraints added to the request, the answer made to follow them, and checked.

    Conversations whose last answer is not plain prose are left out.
    """

    kind: Literal["verified"] = "verified"
    of: Annotated[Files | Hub, Field(discriminator="kind")]
    """The source of the exchanges."""


Source = Annotated[Files | Hub | InstalledDocs | Instructions | Drills | Typos | Verified, Field(discriminator="kind")]


PAIRED = ("instructions", "verified")
"""Kinds of sources that know of an answer whether it is right, and how to break it."""


class Clean(Part):
    """What is done to every document before it is learned from."""

    personal_data: Literal["keep", "mask"] = "mask"
    """Whether mail addresses, public IP addresses and phone numbers are replaced by made-up ones."""
    language_model: str | None = None
    """A fastText model for language identification, such as `lid.176.bin`, on this machine; plain text that it does
    not take for English is dropped (no check by default)."""
    language_score: float = Field(default=0.65, gt=0, lt=1)
    """Least probability of English under `language_model`."""
    near_duplicates: bool = False
    """Drop near duplicates over all sources by MinHash (datatrove); the sources are read twice for it."""
    decontaminate: list[str] = []
    """lm_eval tasks whose test items must not be in the text: a document that shares 12 words in a row with one is
    dropped. Their data comes from `eval.data` where that is given, from the hub otherwise."""
    samples: Count = 5
    """Dropped documents kept per source and reason, to be looked at."""


class Prepare(Part):
    """Where the work of the `prepare` stage is done."""

    executor: Literal["local", "ray", "slurm"] = "local"
    """datatrove's executor: processes of this machine, a Ray cluster, or Slurm jobs."""
    tasks: PositiveCount = 1
    """Tasks into which the files of each source are divided; 1 reads and writes in one go. The store is the same,
    but for sources with `max_documents` or `max_bytes`, of which every task takes its share."""
    workers: PositiveCount = 1
    """Tasks that run at the same time."""
    slurm: dict[str, Any] = {}
    """Settings of `SlurmPipelineExecutor`, such as `{partition: cpu, time: "04:00:00"}`."""


class Data(Part):
    """What the model reads in pretraining, and how text becomes tokens."""

    sources: list[Source] = Field(default_factory=_default_text, min_length=1)
    """The pretraining mixture."""
    validation_fraction: float = Field(default=0.005, gt=0, lt=0.5)
    """Share of documents held out, chosen by a hash of the document's text."""
    min_document_bytes: Count = 64
    """Shorter documents are dropped."""
    shard_tokens: PositiveCount = 16_000_000
    """Tokens per shard of the token store (two bytes each)."""
    clean: Clean = Clean()
    """Cleaning, of the conversations for SFT too."""

    @model_validator(mode="after")
    def _weights_add_up(self) -> Data:
        _check_sources(self.sources)
        return self


class Phase(Part):
    """A stretch of training with mixture weights of its own."""

    until: float = Field(gt=0, le=1)
    """Fraction of training at which the phase ends."""
    weights: dict[str, float] = {}
    """Weight by source name; a source that is not named keeps its own weight."""
    sequence_length: PositiveCount | None = None
    """Tokens per sequence in this phase; divides the training's own `sequence_length`, which is the default."""


class Optimizer(Part):
    """AdamW throughout, or Muon for the hidden matrices and AdamW for the rest."""

    kind: Literal["adamw", "muon"] = "muon"
    """`muon`: hidden matrices by Muon (Jordan et al. 2024), embeddings, head and norms by AdamW."""
    learning_rate_scale: float = Field(default=1.0, gt=0)
    """Multiplies the peak learning rates, which are derived from width and batch (docs/train.md): the one dial."""
    learning_rates: dict[Literal["hidden", "embedding", "head", "norm"], PositiveFloat] = {}
    """Peak learning rates to be taken as they are, by role of the parameters, in place of derived ones."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Muon's Nesterov momentum."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay, on matrices only."""


class Training(Part):
    """One run of the training loop, in pretraining and in SFT alike."""

    tokens: PositiveCount = 18_000_000_000
    """Length of training, in tokens; the last step is rounded up."""
    batch_tokens: PositiveCount = 524_288
    """Tokens per optimizer step, over all ranks."""
    sequence_length: PositiveCount = 2048
    """Tokens per sequence."""
    micro_batch_tokens: PositiveCount = 16_384
    """Tokens per forward pass on one rank: the dial for memory. Does not change which data a step sees."""
    warmup_fraction: float = Field(default=0.02, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly."""
    decay_fraction: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps, at the end, in which the learning rate falls linearly to zero."""
    decay: Literal["linear", "cosine"] = "linear"
    """Form of that fall: a straight line, or half a period of the cosine (Loshchilov and Hutter 2017)."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest global norm of the gradient: a longer one is scaled down to it."""
    max_gradient_norm: float = Field(default=1000.0, gt=0)
    """Norm, before clipping, above which the gradient has exploded and the step is skipped."""
    max_skipped_steps: Count = 10
    """Steps that may be skipped, because the loss is not a number or the gradient exploded, before training stops."""
    packing: Literal["stream", "documents"] = "stream"
    """`stream`: text is cut every `sequence_length` tokens. `documents`: sequences are filled with whole documents."""
    mask_documents: bool = False
    """Keep attention within documents. Off, a sequence is one stream of text, documents separated by a token."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products; `auto` is bfloat16 where the processor has instructions for it. Weights,
    gradients and optimizer state are float32 always."""
    optimizer: Optimizer = Optimizer()
    """The optimizer and its learning rates."""
    phases: list[Phase] = []
    """The curriculum: mixture weights by stretch of training. Empty: the sources' weights throughout."""
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    """Minutes between checkpoints; one is always written at the end and on Ctrl-C."""
    keep_checkpoints: PositiveCount = 2
    """Old checkpoints kept beside the newest."""
    keep_every: Count = 0
    """Steps between checkpoints that are saved at a round number and kept for good (0: none)."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How several ranks share the model: each has all of it (`ddp`), or a part (`fsdp`), for models that fill a GPU."""
    timeout_seconds: float = Field(default=600.0, gt=0)
    """Seconds without a word from another rank after which a rank gives up; longer than the slowest step."""
    validation_bytes: Count = 200_000
    """Bytes of each source's validation text that are coded at the end (0: none)."""
    validation_every: float = Field(default=0.25, gt=0, le=1)
    """Fraction of training between two validations."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Training:
        if self.batch_tokens % self.sequence_length:
            raise ValueError("batch_tokens must be a multiple of sequence_length")
        if self.micro_batch_tokens % self.sequence_length:
            raise ValueError("micro_batch_tokens must be a multiple of sequence_length")
        untils = [phase.until for phase in self.phases]
        if untils != sorted(set(untils)) or (untils and untils[-1] != 1.0):
            raise ValueError("phases must have rising `until`, the last of them 1.0")
        for length in {phase.sequence_length or self.sequence_length for phase in self.phases}:
            if self.sequence_length % length:
                raise ValueError(f"a phase's sequence_length of {length} must divide {self.sequence_length}")
            if length < self.sequence_length and self.packing == "documents":
                raise ValueError("a phase's own sequence_length needs `packing: stream`: documents fit one length only")
        return self

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps."""
        return -(-self.tokens // self.batch_tokens)


class Sft(Training):
    """Instruction tuning: conversations, packed, with a loss on the assistant's tokens only."""

    sources: list[Source] = Field(default_factory=_default_instructions, min_length=1)
    """The conversations. Plain text has no assistant to learn from and is refused."""
    packing: Literal["stream", "documents"] = "documents"
    """Conversations are kept whole; `stream` would cut them anywhere."""
    mask_documents: bool = True
    """Keep attention within conversations."""

    @model_validator(mode="after")
    def _weights_add_up(self) -> Sft:
        _check_sources(self.sources)
        return self


class Tuning(Part):
    """What the trainings by trl have in common: AdamW, whose learning rate rises, and falls linearly to zero."""

    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate of AdamW; models of billions of parameters want a hundredth of it."""
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly; in the others it falls linearly to zero."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest global norm of the gradient: a longer one is scaled down to it."""
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    """Minutes between checkpoints; one is always written on Ctrl-C."""


class Dpo(Tuning):
    """Preference tuning after SFT, by DPO (Rafailov et al. 2023): rather a verified answer than its broken twin.

    The pairs are made of the sources of kind `instructions` and `verified` in `sft.sources`, by their weights.
    """

    pairs: PositiveCount = 2000
    """How many pairs are learned from, once each."""
    batch_pairs: PositiveCount = 32
    """Pairs per optimizer step."""
    micro_batch_pairs: PositiveCount = 4
    """Pairs per forward pass: the dial for memory. They are padded to the longest, so few at a time are also faster."""
    beta: float = Field(default=0.1, gt=0)
    """How much a change of the log-odds of the two answers counts; more keeps the weights nearer to SFT's."""
    sft_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on the chosen answer beside DPO's. Without it, both answers become less likely."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Dpo:
        if self.batch_pairs % self.micro_batch_pairs:
            raise ValueError("batch_pairs must be a multiple of micro_batch_pairs")
        return self

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps."""
        return -(-self.pairs // self.batch_pairs)


class Grpo(Tuning):
    """Reinforcement learning, by GRPO (Shao et al. 2024), with the checks of instructions as the reward.

    The prompts are made as those of the sources of kind `instructions` in `sft.sources` are, by their weights.
    """

    steps: PositiveCount = 100
    """Optimizer steps, each on answers of the weights before it."""
    batch_prompts: PositiveCount = 16
    """Prompts per step."""
    answers: int = Field(default=8, ge=2)
    """Answers to each prompt: what is better than their mean becomes likelier, what is worse less likely."""
    micro_batch_answers: PositiveCount = 8
    """Answers per forward pass: the dial for memory. They are padded to the longest of the step."""
    max_new_tokens: PositiveCount = 160
    """Tokens after which an answer is cut off; it is worth nothing then."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature at which the answers are drawn."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Grpo:
        if self.batch_answers % self.micro_batch_answers:
            raise ValueError("batch_prompts times answers must be a multiple of micro_batch_answers")
        return self

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps."""
        return self.steps

    @property
    def batch_answers(self) -> int:
        """Answers per optimizer step."""
        return self.batch_prompts * self.answers

    @property
    def num_answers(self) -> int:
        """Answers in all steps."""
        return self.steps * self.batch_answers


class Eval(Part):
    """What is measured after training."""

    instructions: Count = 200
    """Held-out generated instructions to follow (unseen phrasings, unseen topics)."""
    max_new_tokens: PositiveCount = 160
    """Tokens after which an answer is cut off."""
    answers: Count = 100
    """Held-out answers of each source of SFT whose bits per byte are counted."""
    bits_per_byte_bytes: Count = 1_000_000
    """Bytes of each source's validation text to code, also by `xz -9e`."""
    typo_passages: Count = 200
    """Held-out passages whose beginning is mistyped, to see what it costs to go on with them."""
    typo_instructions: Count = 60
    """Held-out requests with instructions that are asked once more with typos."""
    tasks: list[str] = []
    """lm_eval tasks, such as `hellaswag`."""
    limit: PositiveCount | None = None
    """Documents per lm_eval task (all by default)."""
    data: str | None = None
    """Folder with the data files of those tasks, for use offline; from the hub by default."""


class Export(Part):
    """What is released."""

    gguf: list[Literal["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q4_K_M", "Q4_0"]] = ["F16", "Q8_0"]
    """GGUF files to write, by llama.cpp's names."""
    temperature: float = Field(default=0.7, ge=0)
    """Default sampling temperature of the release."""
    repetition_penalty: float = Field(default=1.1, ge=1)
    """Default repetition penalty; models this small loop without one."""


class Recipe(Part):
    """Everything about a model."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the model, its run folder and its files."""
    title: str = ""
    """How the model is called in its card and on its page (default: the name)."""
    seed: Count = 0
    """Seed of the weights, the order of the data, the generators."""
    model: Model = Model()
    """The decoder's sizes."""
    tokenizer: Tokenizer = Tokenizer()
    """How the vocabulary is learned."""
    data: Data = Data()
    """The pretraining text."""
    prepare: Prepare = Prepare()
    """How the text is prepared: by which processes, on which machines."""
    train: Training = Training()
    """Pretraining."""
    sft: Sft = Sft()
    """Instruction tuning."""
    dpo: Dpo | None = None
    """Preference tuning; left out by default, `dpo: {}` asks for it."""
    grpo: Grpo | None = None
    """Reinforcement learning; left out by default, `grpo: {}` asks for it."""
    eval: Eval = Eval()
    """Evaluation."""
    export: Export = Export()
    """Release."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        for key, training in (("train", self.train), ("sft", self.sft)):
            if training.sequence_length > self.model.max_position_embeddings:
                raise ValueError(f"{key}.sequence_length is longer than model.max_position_embeddings")
        _check_phases("train", self.train.phases, self.data.sources)
        _check_phases("sft", self.sft.phases, self.sft.sources)
        if self.dpo and not any(source.weight for source in self.sft.sources if source.kind in PAIRED):
            raise ValueError(f"dpo needs a source of kind {' or '.join(PAIRED)} in sft.sources, to make pairs of")
        if self.grpo and not any(source.weight for source in self.sft.sources if source.kind == "instructions"):
            raise ValueError("grpo needs a source of kind instructions in sft.sources, to make prompts of")
        return self

    def training(self, stage: str) -> Training:
        """Settings of `pretrain` or `sft`."""
        return {"pretrain": self.train, "sft": self.sft}[stage]

    def num_steps(self, stage: str) -> int:
        """Optimizer steps of a training; 0 where the recipe leaves it out."""
        settings = {"pretrain": self.train, "sft": self.sft, "dpo": self.dpo, "grpo": self.grpo}[stage]
        return settings.num_steps if settings else 0

    def sources_of(self, stage: str) -> list[Source]:
        """What `pretrain` or `sft` learns from."""
        return {"pretrain": self.data.sources, "sft": self.sft.sources}[stage]


def load(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file and apply `key.subkey=value` overrides.

    Raises:
        UserError: the file is missing, is not YAML, or a key or value is not a recipe's.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a recipe: it must hold keys and values, such as `name: my-model`")
    for override in overrides or []:
        _override(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}") from error


def dump(recipe: Recipe) -> str:
    """The whole recipe as YAML, defaults included: what a run keeps."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def fingerprint(*values: Any) -> str:
    """Sixteen hex digits that stand for the JSON form of `values`."""
    text = json.dumps(values, sort_keys=True, default=lambda part: part.model_dump(mode="json"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"--set {override}: write it as key=value, such as --set train.tokens=2e6")
    *parents, last = key.split(".")
    for parent in parents:
        values = _child(values, parent, override)
    value = yaml.safe_load(text)
    if isinstance(values, list):
        values[_named(values, last, override)] = value
    else:
        values[last] = value


def _child(values: Any, key: str, override: str) -> Any:
    if isinstance(values, list):
        return values[_named(values, key, override)]
    child = values[key] = {} if values.get(key) is None else values[key]
    if not isinstance(child, dict | list):
        raise UserError(f"--set {override}: `{key}` is a value, not a section")
    return child


def _named(items: list[Any], key: str, override: str) -> int:
    """Position of a list's item, by its number or by its `name`."""
    for index, item in enumerate(items):
        if key == str(index) or (isinstance(item, dict) and item.get("name") == key):
            return index
    raise UserError(f"--set {override}: the list has no item `{key}`; use its name or its position from 0")


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"`{place}` is not a key of a recipe; docs/recipe.md lists them all"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"`{place}`: {message}{shown}" if place else message
