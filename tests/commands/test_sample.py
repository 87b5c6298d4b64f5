"""`keylm sample`: the weights that are named write what they would in a chat."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.screen import printed

from keylm.commands.sample import find_weights, show_samples
from keylm.common.errors import UserError
from keylm.data.prepare.held_out import held_out_beginnings, held_out_conversations
from keylm.data.prepare.outputs import open_store
from keylm.inference.generator import generator_of_run
from keylm.inference.samples import sample_held_out
from keylm.run import Run
from keylm.tokenizer.messages import decode_messages, encode_messages
from keylm.tokenizer.tokenizer import Tokenizer


def test_held_out_prompts_are_whole_and_held_out(prepared: Run) -> None:
    tokenizer = Tokenizer.load(prepared.stage("tokenizer"))
    for row in held_out_beginnings(prepared, 5, max_tokens=40):
        # Of the two sources one is generated, and left out.
        assert row.source == "prose"
        assert row.prompt[0] == tokenizer.end_of_text
        assert tokenizer.end_of_text not in row.prompt[1:] + row.reference
        store = open_store(prepared, "pretrain", "prose", "validation")
        held_out = tokenizer.decode(store.tokens(0, store.num_tokens).tolist())
        assert tokenizer.decode(row.prompt + row.reference) in held_out
    for row in held_out_conversations(prepared, 5, max_prompt_tokens=60):
        messages = decode_messages(tokenizer, row.prompt)
        assert messages[-1]["role"] == "user"
        assert row.prompt == encode_messages(tokenizer, messages, add_generation_prompt=True)[0]
        assert row.reference[-1] == tokenizer.turn_end


def test_the_latest_weights_answer_and_pretrained_ones_continue(trained: Run) -> None:
    answered = printed(lambda: show_samples(trained), 80)
    assert "talk, held out\nuser: " in answered
    assert "the answer there: " in answered
    continued = printed(lambda: show_samples(trained, stage="pretrain"), 80)
    assert "prose, held out" in continued
    assert printed(lambda: show_samples(trained, "The river"), 80).startswith("The river\n")
    assert not printed(lambda: show_samples(trained, "The river", "pretrain"), 80).startswith("The river\n")


def test_samples_repeat(trained: Run) -> None:
    generator = generator_of_run(trained, "sft")
    first, second = (sample_held_out(trained, generator, "sft", 3, 20) for _ in range(2))
    assert first == second
    others = sample_held_out(trained, generator, "sft", 3, 20, seed=1)
    assert [row["answer"] for row in others] != [row["answer"] for row in first]
    assert [row["messages"] for row in others] == [row["messages"] for row in first]


def test_a_checkpoint_in_the_middle_is_found(trained: Run) -> None:
    assert find_weights(trained, None, None) == ("sft", trained.weights("sft"))
    stage, path = find_weights(trained, "pretrain", 16)
    assert stage == "pretrain"
    assert path == trained.stage("pretrain") / "checkpoints" / "step-00000016" / "model.safetensors"
    with pytest.raises(UserError, match="--step 7: pretrain has checkpoints of the steps 16, 24, 30"):
        find_weights(trained, "pretrain", 7)
    with pytest.raises(UserError, match="--stage dpo: the training stages of"):
        find_weights(trained, "dpo", None)


def test_a_run_without_weights_says_what_to_run(tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no weights: run `keylm pretrain"):
        show_samples(tiny_run)


def test_a_prompt_longer_than_the_context_is_refused(trained: Run) -> None:
    with pytest.raises(UserError, match="tokens, and the context 128: shorten it"):
        show_samples(trained, "a river " * 200)
