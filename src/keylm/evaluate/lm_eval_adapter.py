"""Models as lm_eval sees them: its transformers adapter, with our likelihoods and greedy answers, or llama.cpp's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from keylm.common.console import progress
from keylm.common.errors import UserError
from keylm.evaluate.external_models import external_generator, load_external
from keylm.evaluate.likelihoods import log_likelihoods
from keylm.inference.generator import Generator, KeyLMGenerator, generator_of_run
from keylm.run import Run
from keylm.stages import completed_training_stages

_BATCH_SIZE = 16


class GeneratorLM(HFLM):  # type: ignore[misc]
    """`HFLM` with greedy answers by a generator of ours.

    Args:
        load_generator: Loads a generator with the same weights; called only if a task generates text.
        options: Options of `HFLM`.
    """

    def __init__(self, load_generator: Callable[[], Generator], **options: Any) -> None:
        super().__init__(**options)
        self._load_generator = load_generator

    @cached_property
    def _generator(self) -> Generator:
        return self._load_generator()

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer each request; sampling and mixed settings are left to `HFLM`."""
        # A generator takes one set of options for all prompts.
        settings = [normalize_gen_kwargs(request.args[1], self.max_gen_toks) for request in requests]
        if any(own["do_sample"] or own != settings[0] for own in settings):
            return list(super().generate_until(requests, disable_tqdm))
        max_new_tokens = settings[0]["max_gen_toks"]
        # As in `HFLM`, a prompt that leaves no room for the answer loses its beginning.
        prompts = [
            self.tok_encode(
                request.args[0], left_truncate_len=self.max_length - max_new_tokens, add_special_tokens=False
            )
            for request in requests
        ]
        stop = handle_stop_sequences(settings[0].get("until"), eos=None)
        return [answer.text for answer in self._generator.greedy(prompts, max_new_tokens, stop)]


class RunLM(GeneratorLM):
    """A run's weights: encoded and truncated as by `HFLM`, with answers and likelihoods by our own model.

    Args:
        generator: The model and its tokenizer.
        options: Options of `HFLM`, among them the same weights in transformers.
    """

    def __init__(self, generator: KeyLMGenerator, **options: Any) -> None:
        super().__init__(lambda: generator, **options)
        self._native = generator.model

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], *_: Any, **__: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        with progress("likelihoods", len(pairs), "answers") as bar:
            return log_likelihoods(self._native, pairs, advance=bar.advance)


def run_lm(run: Run) -> RunLM:
    """The final weights of a run's last training stage, in float32.

    Raises:
        UserError: The run has no trained weights.
    """
    from safetensors.torch import load_file
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    if not completed_training_stages(run):
        raise UserError(f"{run.folder} has no trained weights to score: run `keylm pretrain {run.folder}` first")
    stage = completed_training_stages(run)[-1]
    model = Qwen3ForCausalLM(Qwen3Config(**run.recipe.model.transformers_fields, tie_word_embeddings=False))
    model.load_state_dict(load_file(run.verified_weights(stage)))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run.stage("tokenizer"))
    # Otherwise `HFLM` continues a finished answer for as long as another one of its batch is being generated.
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return RunLM(
        generator_of_run(run, stage),
        pretrained=model.eval(),
        tokenizer=tokenizer,
        batch_size=_BATCH_SIZE,
        add_bos_token=False,
    )


def external_lm(path: Path) -> HFLM:
    """A GGUF file or transformers folder; llama.cpp generates the answers of a GGUF file.

    Raises:
        UserError: The model does not exist, or transformers cannot load it.
    """
    model, tokenizer = load_external(path)
    options = {"pretrained": model, "tokenizer": tokenizer, "batch_size": _BATCH_SIZE}
    return GeneratorLM(partial(external_generator, path, model), **options) if path.is_file() else HFLM(**options)
