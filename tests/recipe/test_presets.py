"""The presets: every one reads, over HTTP, rows like the real ones into documents that were worked out by hand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from helpers import hub_server
from helpers.hub_reading import parquet, read_all

from keylm.common.errors import UserError
from keylm.recipe import load_recipe
from keylm.recipe.presets import presets
from keylm.recipe.sources import HubConfig

TEXT, FLAG, COUNT, REAL = pyarrow.string(), pyarrow.bool_(), pyarrow.int64(), pyarrow.float64()
STRINGS = pyarrow.list_(TEXT)


def struct(**fields):
    return pyarrow.struct(list(fields.items()))


def table(rows, **columns):
    """A parquet file with these columns; those that a row does not name are null."""
    return parquet(rows, pyarrow.schema(list(columns.items())))


def card(**configs):
    """The metadata block of a data set card."""
    parts = {
        name: [{"split": split, "path": path} for split, path in splits.items()] for name, splits in configs.items()
    }
    config_list = [{"config_name": name, "data_files": files} for name, files in parts.items()]
    return f"---\nconfigs: {json.dumps(config_list)}\n---\n".encode()


def turns(*contents):
    return [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]


TURN = struct(content=TEXT, role=TEXT)
MESSAGES = pyarrow.list_(TURN)

WILDCHAT_TURN = struct(
    content=TEXT,
    country=TEXT,
    hashed_ip=TEXT,
    language=TEXT,
    redacted=FLAG,
    role=TEXT,
    toxic=FLAG,
    turn_identifier=COUNT,
)
WILDCHAT = {
    "conversation_hash": TEXT,
    "model": TEXT,
    "timestamp": pyarrow.timestamp("us", "UTC"),
    "conversation": pyarrow.list_(WILDCHAT_TURN),
    "turn": COUNT,
    "language": TEXT,
    "openai_moderation": pyarrow.list_(struct(flagged=FLAG)),
    "toxic": FLAG,
    "redacted": FLAG,
    "state": TEXT,
    "country": TEXT,
    "hashed_ip": TEXT,
}
OASST = {
    "message_id": TEXT,
    "parent_id": TEXT,
    "user_id": TEXT,
    "created_date": TEXT,
    "text": TEXT,
    "role": TEXT,
    "lang": TEXT,
    "review_count": pyarrow.int32(),
    "review_result": FLAG,
    "deleted": FLAG,
    "rank": pyarrow.int32(),
    "synthetic": FLAG,
    "model_name": TEXT,
    "detoxify": struct(toxicity=REAL),
    "message_tree_id": TEXT,
    "tree_state": TEXT,
    "emojis": struct(name=STRINGS, count=pyarrow.list_(pyarrow.int32())),
    "labels": struct(name=STRINGS, value=pyarrow.list_(REAL)),
}
REDDIT = (
    "archived author author_fullname body comment_type controversiality created_utc edited gilded id link_id locked "
    "name parent_id permalink retrieved_on score subreddit_id subreddit_name_prefixed subreddit_type "
    "total_awards_received"
)
SMOLTALK2 = {
    "messages": MESSAGES,
    "chat_template_kwargs": struct(
        custom_instructions=TEXT, enable_thinking=FLAG, python_tools=STRINGS, xml_tools=STRINGS
    ),
    "source": TEXT,
}


def oasst(tree, message, parent, role, text, rank=None, lang="en", deleted=False):
    return {
        "message_tree_id": tree,
        "message_id": message,
        "parent_id": parent,
        "role": role,
        "text": text,
        "rank": rank,
        "lang": lang,
        "deleted": deleted,
    }


OASST_ROWS = [
    # The best-ranked answer comes second in the file, a better one was deleted, and the question behind it ends there.
    oasst("t1", "q", None, "prompter", "Why is the sky blue?"),
    oasst("t1", "a1", "q", "assistant", "Because.", rank=2),
    oasst("t2", "q2", None, "prompter", "Warum?", lang="de"),
    oasst("t1", "a2", "q", "assistant", "Air scatters blue light more.", rank=1),
    oasst("t1", "a0", "q", "assistant", "Buy my hat.", rank=0, deleted=True),
    oasst("t1", "b", "a2", "prompter", "And red light?"),
    oasst("t1", "c1", "b", "assistant", "Less.", rank=None),
    oasst("t1", "c0", "b", "assistant", "It is scattered less.", rank=0),
    oasst("t1", "d", "c0", "prompter", "Thanks!"),
    oasst("t2", "a3", "q2", "assistant", "Darum.", rank=0, lang="de"),
    oasst("t3", "q3", None, "prompter", "Is anybody there?"),
    oasst("t4", "q4", None, "prompter", "Hello!", deleted=True),
    oasst("t4", "a4", "q4", "assistant", "Hello there!", rank=0),
]


def smoltalk2(split, words, system=None):
    rows = [{"messages": turns(words, "Yes."), "chat_template_kwargs": {"custom_instructions": system}, "source": "x"}]
    return {f"SFT/{split}-00000-of-00001.parquet": table(rows, **SMOLTALK2)}


SMOLTALK2_SPLITS = {
    entry.fields["split"]: f"SFT/{entry.fields['split']}-*"
    for entry in presets().values()
    if entry.fields.get("config") == "SFT"
}

REPOSITORIES = {
    "HuggingFaceFW/fineweb-edu-score-2": {
        "README.md": card(**{"default": {"train": "data/*/*"}, "CC-MAIN-2013-20": {"train": "data/CC-MAIN-2013-20/*"}}),
        "data/CC-MAIN-2013-20/train-00000-of-00014.parquet": table(
            [{"text": "A lesson.", "int_score": 3}],
            **dict.fromkeys("text id dump url file_path language".split(), TEXT),  # noqa: SIM905
            language_score=REAL,
            token_count=COUNT,
            score=REAL,
            int_score=COUNT,
        ),
    },
    "wikimedia/wikipedia": {
        "README.md": card(**{"20231101.de": {"train": "20231101.de/*"}, "20231101.en": {"train": "20231101.en/*"}}),
        "20231101.de/train-00000-of-00001.parquet": table([{"text": "Ein Fuchs."}], id=TEXT, url=TEXT, text=TEXT),
        "20231101.en/train-00000-of-00041.parquet": table(
            [{"id": "1", "title": "Fox", "text": "A fox is an animal."}], id=TEXT, url=TEXT, title=TEXT, text=TEXT
        ),
    },
    "HuggingFaceGECLM/REDDIT_comments": {
        "README.md": b"---\ndataset_info: {features: [{name: body, dtype: string}]}\n---\n# REDDIT_comments\n",
        "data/tifu-00000-of-00018-0d62f7b5d8fbd5a8.parquet": table(
            [{"body": "So I fell."}, {"body": "[deleted]"}], **dict.fromkeys(REDDIT.split(), TEXT)
        ),
        "data/askscience-00000-of-00001-cf9d1ebec8a07140.parquet": table(
            [{"body": "[removed]"}, {"body": "It was [deleted]"}], **dict.fromkeys(REDDIT.split(), TEXT)
        ),
    },
    "marin-community/stackexchange-markdown": {
        "README.md": b"# Marin StackExchange Markdown\n",
        "data/train-00000-of-00001.parquet": table([{"id": "7", "text": "# How?\n\nSo."}], id=TEXT, text=TEXT),
    },
    "allenai/WildChat-1M": {
        "README.md": card(default={"train": "data/train-*"}),
        "data/train-00000-of-00014.parquet": table(
            [
                {"conversation": turns("Hi", "Hello!"), "language": "English", "toxic": False},
                {"conversation": turns("Damn", "No."), "language": "English", "toxic": True},
                {"conversation": turns("Salut", "Bonjour !"), "language": "French", "toxic": False},
                {"conversation": turns("Hm", None), "language": "English", "toxic": False},
            ],
            **WILDCHAT,
        ),
    },
    "HuggingFaceH4/ultrachat_200k": {
        "README.md": card(default={"train_sft": "data/train_sft-*", "train_gen": "data/train_gen-*"}),
        "data/train_sft-00000-of-00003.parquet": table(
            [{"prompt": "Tea?", "messages": turns("Tea?", "Please.", "Milk?", "No.")}],
            prompt=TEXT,
            prompt_id=TEXT,
            messages=MESSAGES,
        ),
        "data/train_gen-00000-of-00003.parquet": table(
            [{"messages": turns("No", "No")}], prompt=TEXT, messages=MESSAGES
        ),
    },
    "lmsys/lmsys-chat-1m": {
        "README.md": card(default={"train": "data/train-*"}),
        "data/train-00000-of-00006.parquet": table(
            [
                {"conversation": turns("Hola", "¡Hola!"), "language": "Spanish"},
                {"conversation": turns("Hey", "Hey!"), "language": "English"},
            ],
            conversation_id=TEXT,
            model=TEXT,
            conversation=MESSAGES,
            turn=COUNT,
            language=TEXT,
            openai_moderation=pyarrow.list_(struct(flagged=FLAG)),
            redacted=FLAG,
        ),
    },
    "OpenAssistant/oasst2": {
        "README.md": b"---\nlicense: apache-2.0\n---\n# OASST2\n",
        "data/train-00000-of-00001.parquet": table(OASST_ROWS, **OASST),
        "data/validation-00000-of-00001.parquet": table(OASST_ROWS[2:3], **OASST),
    },
    "HuggingFaceTB/cosmopedia-100k": {
        "README.md": card(default={"train": "data/train-*"}),
        "data/train-00000-of-00002.parquet": table(
            [{"prompt": "Write about rain.", "text": "Rain falls.", "seed_data": "web"}],
            prompt=TEXT,
            text_token_length=COUNT,
            text=TEXT,
            seed_data=TEXT,
            format=TEXT,
            audience=TEXT,
        ),
    },
    "HuggingFaceTB/smol-smoltalk": {
        "README.md": card(default={"train": "data/train-*", "test": "data/test-*"}),
        "data/train-00000-of-00004.parquet": table([{"messages": turns("Hey", "Hi!")}], messages=MESSAGES, source=TEXT),
        "data/test-00000-of-00001.parquet": table([{"messages": turns("No", "No")}], messages=MESSAGES, source=TEXT),
    },
    "HuggingFaceTB/smoltalk2": {
        "README.md": card(Mid={"OpenThoughts3_1.2M": "Mid/OpenThoughts3_1.2M-*"}, SFT=SMOLTALK2_SPLITS),
        "Mid/OpenThoughts3_1.2M-00000-of-00001.parquet": table([{"messages": turns("No", "No")}], messages=MESSAGES),
        **smoltalk2("smoltalk_smollm3_smol_magpie_ultra_no_think", "Magpie?", system=""),
        **smoltalk2("tulu_3_sft_personas_instruction_following_no_think", "Persona?"),
        **smoltalk2("Mixture_of_Thoughts_science_no_think", "Science?"),
        **smoltalk2("OpenHermes_2.5_no_think", "Hermes?"),
        **smoltalk2("smoltalk_smollm3_systemchats_30k_no_think", "System?", system="Be brief."),
        **smoltalk2("smoltalk_smollm3_smol_summarize_no_think", "Summary?"),
    },
}

EXPECTED = {
    "fineweb-edu": ["A lesson."],
    "wikipedia": ["A fox is an animal."],
    "reddit": ["It was [deleted]", "So I fell."],
    "stackexchange": ["# How?\n\nSo."],
    "wildchat": [turns("Hi", "Hello!"), turns("Hm", "")],
    "ultrachat": [turns("Tea?", "Please.", "Milk?", "No.")],
    "lmsys-chat": [turns("Hey", "Hey!")],
    "oasst2": [
        turns("Why is the sky blue?", "Air scatters blue light more.", "And red light?", "It is scattered less."),
    ],
    "cosmopedia": ["Rain falls."],
    "smol-smoltalk": [turns("Hey", "Hi!")],
    "smoltalk2-magpie-ultra": [turns("Magpie?", "Yes.")],
    "smoltalk2-persona-following": [turns("Persona?", "Yes.")],
    "smoltalk2-science": [turns("Science?", "Yes.")],
    "smoltalk2-openhermes": [turns("Hermes?", "Yes.")],
    "smoltalk2-system-chats": [[{"role": "system", "content": "Be brief."}, *turns("System?", "Yes.")]],
    "smoltalk2-summarization": [turns("Summary?", "Yes.")],
}


def keylm(folder, *arguments, **environment):
    command = [sys.executable, "-m", "keylm.cli", *arguments]
    variables = {**os.environ, "HF_HOME": str(folder), "COLUMNS": "240", **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache into which every preset was read, and the documents."""
    folder = tmp_path_factory.mktemp("entries")
    names = list(EXPECTED)
    with hub_server.serve(REPOSITORIES) as server:
        documents, _ = read_all([{"preset": name} for name in names], folder, HF_ENDPOINT=server.endpoint)
    return folder, dict(zip(names, documents, strict=True))


@pytest.mark.parametrize("name", presets())
def test_a_preset_reads_rows_like_the_real_ones(cache, name):
    documents = cache[1][name].get("documents")
    assert documents is not None, cache[1][name]
    assert sorted([text or messages for text, messages in documents], key=str) == sorted(EXPECTED[name], key=str)


def test_a_preset_fills_in_absent_fields():
    source = HubConfig.model_validate({"name": "mine", "preset": "ultrachat", "category": "instructions"})
    assert source.dataset == "HuggingFaceH4/ultrachat_200k"
    assert source.split == "train_sft"
    assert source.category == "instructions"
    assert HubConfig.model_validate(source.model_dump()) == source


def test_an_unknown_preset_is_one_sentence(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndata: {sources: [{name: w, type: hub, preset: wikipeda}]}\n")
    with pytest.raises(UserError, match="there is no preset `wikipeda`; available: fineweb-edu, wikipedia, ") as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_the_page_of_sources_lists_the_presets():
    page = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
    rows = [
        (
            name,
            *(entry.fields[key] for key in ("dataset", "category", "license")),
            "yes" if entry.gated else "",
            entry.about,
        )
        for name, entry in presets().items()
    ]
    lines = [f"| `{name}` | " + " | ".join(cells) + " |" for name, *cells in rows]
    assert re.findall(r"^\| `[a-z0-9-]+` \| \w.*/.*$", page, re.MULTILINE) == lines


def test_the_list_says_what_is_on_this_machine(cache, tmp_path):
    folder, _ = cache
    listed = keylm(folder, "sources").stdout
    assert re.search(r"wikipedia +cached, 0.00 GB *\n +wikimedia/wikipedia 20231101.en train *\n", listed)
    assert re.search(r"lmsys-chat +cached, 0.00 GB *\n.*\n.*\n.*; gated *\n", listed)
    (snapshot,) = folder.glob("hub/datasets--HuggingFaceGECLM--REDDIT_comments/snapshots/*")
    next(snapshot.glob("data/tifu*")).unlink()
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ndata:\n  sources:\n"
        "  - {name: reddit, type: hub, preset: reddit}\n"
        "  - {name: other, type: hub, dataset: some/data}\n"
        f"  - {{name: here, type: files, path: {path}.txt}}\n"
        f"  - {{name: there, type: files, path: {path}.md}}\n"
    )
    path.with_name("mine.yaml.txt").write_text("Text.")
    listed = keylm(folder, "sources", str(path)).stdout
    assert re.search(r"reddit +partly: 1 of 2 files, .*\n +HuggingFaceGECLM/REDDIT_comments \* *\n", listed)
    assert re.search(r"other +not downloaded *\n +some/data train *\n", listed)
    assert re.search(r"\bhere +1 files *\n +type files *\n", listed)
    assert re.search(r"there +missing *\n +type files *\n", listed)
    assert re.search(r"instructions +generated *\n +type instructions *\n", listed)


def test_offline_is_an_option_of_the_stages_that_read(cache, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndata: {sources: [{name: mine, type: hub, dataset: some/data}]}\n")
    run = ("--run", str(tmp_path / "run"), "--offline")
    result = keylm(cache[0], "tokenizer", str(path), *run, HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9")
    assert result.returncode == 2
    assert "keylm: offline, and the list of files of some/data at `main` is not in the cache" in result.stderr
    assert all("--offline" in keylm(tmp_path, command, "--help").stdout for command in ("run", "prepare"))
