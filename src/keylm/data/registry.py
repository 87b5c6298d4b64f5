"""The data sets that keylm knows by name: where each lies on the hub and how its rows become documents.

A recipe's `{kind: hub, entry: NAME}` takes every field that it does not give from here. Columns are those of the data
sets' cards; `docs/sources.md` says which could not be checked.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One data set. The fields but `about` and `gated` are those of a recipe's hub source, and mean the same."""

    about: str
    """What it is, in one line."""
    dataset: str
    category: str
    license: str
    config: str | None = None
    split: str = "train"
    text_column: str = "text"
    messages_column: str = "messages"
    system_column: str | None = None
    keep: dict[str, str | int | bool] = field(default_factory=dict)
    drop: dict[str, list[str]] = field(default_factory=dict)
    trees: bool = False
    gated: bool = False
    """Whether its terms must be accepted on its page before it can be downloaded."""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a recipe's hub source that the entry fills in."""
        return {name: value for name, value in asdict(self).items() if name not in ("about", "gated")}


def find(name: str) -> Entry:
    """The entry of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in ENTRIES:
        raise ValueError(f"there is no entry `{name}`; there are {', '.join(ENTRIES)}")
    return ENTRIES[name]


def _smoltalk2(about: str, split: str) -> Entry:
    return Entry(
        about,
        "HuggingFaceTB/smoltalk2",
        "instructions",
        "Apache-2.0, and those of its parts",
        config="SFT",
        split=split,
        system_column="chat_template_kwargs.custom_instructions",
    )


ENTRIES = {
    "fineweb-edu": Entry(
        "Web pages of educational value, of every Common Crawl dump since 2013",
        "HuggingFaceFW/fineweb-edu-score-2",
        "formal",
        "ODC-By 1.0",
        config="default",
    ),
    "wikipedia": Entry(
        "The articles of the English Wikipedia, of November 2023",
        "wikimedia/wikipedia",
        "formal",
        "CC BY-SA 3.0 and GFDL",
        config="20231101.en",
    ),
    "reddit": Entry(
        "Comments of chosen subreddits; each split is a subreddit",
        "HuggingFaceGECLM/REDDIT_comments",
        "casual",
        "not stated on its card",
        split="*",
        text_column="body",
        drop={"body": ["[deleted]", "[removed]"]},
    ),
    "stackexchange": Entry(
        "Questions of all Stack Exchange sites with their answers, as Markdown",
        "marin-community/stackexchange-markdown",
        "casual",
        "CC BY-SA 4.0",
    ),
    "wildchat": Entry(
        "What people asked ChatGPT in 2023 and 2024, in English, without what was found toxic",
        "allenai/WildChat-1M",
        "conversational",
        "ODC-By 1.0",
        messages_column="conversation",
        keep={"language": "English", "toxic": False},
    ),
    "ultrachat": Entry(
        "Conversations between two ChatGPTs, filtered for Zephyr",
        "HuggingFaceH4/ultrachat_200k",
        "conversational",
        "MIT",
        split="train_sft",
    ),
    "lmsys-chat": Entry(
        "What people asked 25 models in the Chatbot Arena of 2023, in English",
        "lmsys/lmsys-chat-1m",
        "conversational",
        "LMSYS-Chat-1M License Agreement",
        messages_column="conversation",
        keep={"language": "English"},
        gated=True,
    ),
    "oasst2": Entry(
        "Conversations written and ranked by volunteers: of each English tree the best-ranked replies",
        "OpenAssistant/oasst2",
        "conversational",
        "Apache-2.0",
        keep={"lang": "en", "deleted": False},
        trees=True,
    ),
    "cosmopedia": Entry(
        "Textbooks and stories written by Mixtral, a sample of 100,000",
        "HuggingFaceTB/cosmopedia-100k",
        "knowledge",
        "Apache-2.0",
    ),
    "smol-smoltalk": Entry(
        "The conversations that SmolLM2's small models were tuned on",
        "HuggingFaceTB/smol-smoltalk",
        "instructions",
        "Apache-2.0",
    ),
    "smoltalk2-magpie-ultra": _smoltalk2(
        "Conversations of several turns, by Llama 3.1 405B", "smoltalk_smollm3_smol_magpie_ultra_no_think"
    ),
    "smoltalk2-persona-following": _smoltalk2(
        "Instructions with constraints that can be checked, by personas",
        "tulu_3_sft_personas_instruction_following_no_think",
    ),
    "smoltalk2-science": _smoltalk2(
        "Questions of science with their answers, without the reasoning", "Mixture_of_Thoughts_science_no_think"
    ),
    "smoltalk2-openhermes": _smoltalk2("Instructions of many kinds, by GPT-4", "OpenHermes_2.5_no_think"),
    "smoltalk2-system-chats": _smoltalk2(
        "Conversations that follow a system prompt", "smoltalk_smollm3_systemchats_30k_no_think"
    ),
    "smoltalk2-summarization": _smoltalk2("Texts with their summaries", "smoltalk_smollm3_smol_summarize_no_think"),
}
