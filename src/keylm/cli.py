"""The command line: one function per command, which parses the arguments and calls the code that does the work.

Every import of that code is inside of the functions, so that `keylm --help` takes a fraction of a second.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from keylm import __version__
from keylm.common.errors import StoppedError, UserError, as_keylm_error


class _Commands(TyperGroup):
    """The commands. Ctrl-C in one is a failure with a sentence, where typer would print "Aborted!"."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise StoppedError("stopped", signal.SIGINT) from None


app = typer.Typer(
    name="keylm",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    # `main` prints errors, and `--debug` shows Python's own traceback.
    pretty_exceptions_enable=False,
    # The other mode keeps the line breaks of docstrings, which makes ragged paragraphs at 80 columns.
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _within(
    minimum: float, maximum: float = float("inf")
) -> Callable[[typer.CallbackParam, float | None], float | None]:
    """A check of an option's value. Unlike typer's own, it refuses NaN, and its message is one sentence."""

    def check(parameter: typer.CallbackParam, value: float | None) -> float | None:
        if value is None or (minimum <= value <= maximum and value != float("inf")):
            return value
        limits = f"at least {minimum:g}" if maximum == float("inf") else f"from {minimum:g} to {maximum:g}"
        raise UserError(f"{parameter.opts[0]} must be {limits}, not {value}")

    return check


RecipeOrRun = Annotated[
    Path,
    typer.Argument(
        help="Recipe (.yaml, or the name of one that comes with KeyLM, such as quickstart), or run folder, which "
        "contains its recipe."
    ),
]
EvaluatedModel = Annotated[
    Path,
    typer.Argument(
        help="Recipe (.yaml) or run folder; or an external model: a .gguf file, a transformers folder, or the shipped "
        "keylm-nano or keylm-nano-base, unless a file or folder of that name is here."
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="Run folder, such as runs/quickstart.")]
ReleasedModel = Annotated[
    Path,
    typer.Argument(
        help="Recipe (.yaml), or run folder, which contains its recipe; or the shipped keylm-nano or keylm-nano-base, "
        "unless a file or folder of that name is here."
    ),
]
ExportedModel = Annotated[
    Path | None,
    typer.Argument(
        help="Run folder with an export, export folder, or .gguf file; or the shipped keylm-nano (the default) or "
        "keylm-nano-base, unless a file or folder of that name is here."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Number of threads to compute with (default: one per physical core).", callback=_within(1, 1024)),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a field of the recipe, such as train.tokens=2e6; repeatable."
    ),
]
Folder = Annotated[Path | None, typer.Option("--run", help="Run folder to write to (default: runs/NAME).")]
Remake = Annotated[
    str | None,
    typer.Option(
        "--remake", metavar="STAGE", help="Make this stage again, and those that follow from it, although it is done."
    ),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Do not use the network: read only what was downloaded before.")
]

_STAGES = "Stages"
_USE = "Use a model"
_INSPECT = "Inspect"


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"keylm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Train a small language model from raw text, evaluate it, export it and chat with it.

    A **recipe** is one YAML file that specifies everything about a model. A **run** is the folder that a recipe fills,
    stage by stage: tokenizer → prepare → pretrain → sft → eval → export. If the recipe has the sections `dpo` or
    `grpo`, these stages follow sft. Any stage can be stopped at any time (Ctrl-C, kill) and resumes where it was.
    Finished stages are skipped.

    First steps:

    - `keylm doctor` checks this machine

    - `keylm run quickstart` trains a small model in minutes

    - `keylm new mine --text FOLDER` writes a recipe for your texts, and `keylm run mine.yaml` trains the model

    - `keylm chat runs/mine` talks to it

    - `keylm docs` lists the pages of the documentation
    """


@app.command(rich_help_panel=_STAGES)
def new(
    name: Annotated[str, typer.Argument(help="Name of the model: the recipe is NAME.yaml, the run runs/NAME.")],
    text: Annotated[
        list[str] | None,
        typer.Option(help="File, folder or pattern of your texts (asked for if not given); repeatable."),
    ] = None,
    chat: Annotated[
        list[str] | None,
        typer.Option(help="File, folder or pattern of conversations (default: generated ones); repeatable."),
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="Time that training and evaluation may take.", callback=_within(0.1, 1e6))
    ] = 10,
) -> None:
    """Write a recipe for your texts: look at them, measure this machine, and pick a size for the time you have."""
    from keylm.commands.new import ask_for_text, write_new_recipe

    write_new_recipe(name, ask_for_text() if text is None else text, chat or [], minutes)


@app.command(rich_help_panel=_STAGES)
def run(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="Recipe (.yaml, or the name of one that comes with KeyLM, such as quickstart), or run folder, which "
            "contains its recipe (default: that of --from)."
        ),
    ] = None,
    set_: Overrides = None,
    run_: Folder = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Take from this run what the recipe would make again the same."),
    ] = None,
    more: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|TOKENS",
            help="Pretrain a finished run longer, such as 30m or 2e6, from its last weights, in RUN-more.",
        ),
    ] = None,
    remake: Remake = None,
    offline: Offline = False,
) -> None:
    """Run all stages that are not done yet, then write results.json and report.html.

    Asks before it begins a training that takes more than a day.
    """
    _set_offline(offline)
    from keylm import stages
    from keylm.commands.lengthen import lengthen_training
    from keylm.commands.long_run import confirm_long_run
    from keylm.commands.report import write_results
    from keylm.commands.reuse import reuse_stages
    from keylm.common import ranks
    from keylm.run import open_run

    if not (named := recipe or from_):
        raise UserError("name a recipe or a run folder, such as `keylm run quickstart`")
    opened = open_run(named, set_, None if more else run_)
    if more:
        opened = lengthen_training(opened, more, run_)
    if from_:
        reuse_stages(from_, opened)
    confirm_long_run(opened)
    stages.run_all(opened, remake)
    if ranks.is_main_process():
        write_results(opened)


@app.command(rich_help_panel=_STAGES)
def tokenizer(
    recipe: RecipeOrRun,
    set_: Overrides = None,
    run_: Folder = None,
    remake: Remake = None,
    offline: Offline = False,
) -> None:
    """Train the tokenizer on a sample of the sources."""
    _set_offline(offline)
    _run_stage("tokenizer", recipe, set_, run_, remake)


@app.command(rich_help_panel=_STAGES)
def prepare(
    recipe: RecipeOrRun,
    set_: Overrides = None,
    run_: Folder = None,
    remake: Remake = None,
    offline: Offline = False,
) -> None:
    """Clean and tokenize the sources into token shards."""
    _set_offline(offline)
    _run_stage("prepare", recipe, set_, run_, remake)


@app.command(rich_help_panel=_STAGES)
def pretrain(recipe: RecipeOrRun, set_: Overrides = None, run_: Folder = None, remake: Remake = None) -> None:
    """Pretrain from scratch on the mixture of text."""
    _run_stage("pretrain", recipe, set_, run_, remake)


@app.command(rich_help_panel=_STAGES)
def sft(recipe: RecipeOrRun, set_: Overrides = None, run_: Folder = None, remake: Remake = None) -> None:
    """Fine-tune on conversations, with a loss on the assistant's tokens only."""
    _run_stage("sft", recipe, set_, run_, remake)


@app.command(rich_help_panel=_STAGES)
def dpo(recipe: RecipeOrRun, set_: Overrides = None, run_: Folder = None, remake: Remake = None) -> None:
    """Tune on preference pairs (DPO): a verified answer over a copy that violates one constraint.

    The recipe needs a `dpo` section, such as `--set dpo={}`.
    """
    _run_stage("dpo", recipe, set_, run_, remake)


@app.command(rich_help_panel=_STAGES)
def grpo(recipe: RecipeOrRun, set_: Overrides = None, run_: Folder = None, remake: Remake = None) -> None:
    """Train by reinforcement learning with rule-based rewards (GRPO).

    The recipe needs a `grpo` section, such as `--set grpo={}`.
    """
    _run_stage("grpo", recipe, set_, run_, remake)


@app.command(name="eval", rich_help_panel=_STAGES)
def evaluate(
    model: EvaluatedModel,
    tasks: Annotated[str, typer.Option(help="lm_eval tasks, separated by commas, such as hellaswag,piqa.")] = "",
    data: Annotated[Path | None, typer.Option(help="Folder with the tasks' data files, for offline use.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Documents per task (default: all); of an external model without --tasks, requests per split.",
            callback=_within(1),
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option("--baselines", help="Also score choices made without the question (the stage always does)."),
    ] = False,
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write the scores to this file too, with seed, versions, and hashes of weights and data."
        ),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(help="Write every document, the model's answer and its scores to this file, as JSON lines."),
    ] = None,
    set_: Overrides = None,
    run_: Folder = None,
    remake: Remake = None,
) -> None:
    """Evaluate a model: bits per byte, held-out instructions, lm_eval tasks.

    For a run, this is the eval stage. With --tasks, it scores a run or an external model on these lm_eval tasks and
    prints the scores beside published ones. For an external model without --tasks, it scores the held-out instructions.
    """
    from keylm.commands.evaluate import score_instructions, score_tasks
    from keylm.evaluate.external_models import is_external
    from keylm.run import open_run
    from keylm.shipped import shipped_model

    named = model
    if shipped := shipped_model(model):
        model = shipped.folder
    if is_external(model) and (set_ or run_ or remake):
        raise UserError(f"{named} has no recipe that --set, --run or --remake could concern: leave them out")
    if tasks:
        scored = model if is_external(model) else open_run(model, set_, run_)
        score_tasks(
            scored, tasks.split(","), limit=limit, data=data, baselines=baselines, json=json_path, samples=samples
        )
    elif samples:
        raise UserError("--samples needs --tasks: without it, the first conversations are kept in results.json")
    elif is_external(model):
        score_instructions(model, per_split=limit, json=json_path)
    elif json_path:
        # Passed over in silence, the option would look as if it had worked.
        raise UserError("--json needs --tasks: the eval stage writes its scores to its folder and to results.json")
    elif limit is not None:
        raise UserError(
            "--limit needs --tasks or an external model: the eval stage takes its sizes from the recipe, "
            "as with --set eval.instructions=60 or --set eval.limit=100"
        )
    else:
        # A stage takes its settings from the recipe alone, so the folder goes there.
        _run_stage("eval", model, [*(set_ or []), *([f"eval.data={data}"] if data else [])], run_, remake)


@app.command(rich_help_panel=_STAGES)
def export(
    recipe: ReleasedModel,
    web: Annotated[
        bool, typer.Option("--web", help="Also write a page that runs the model in the browser (npm fetches wllama).")
    ] = False,
    wllama: Annotated[
        Path | None,
        typer.Option(envvar="KEYLM_WLLAMA", help="Folder of an installed @wllama/wllama, for --web without npm."),
    ] = None,
    set_: Overrides = None,
    run_: Folder = None,
    remake: Remake = None,
) -> None:
    """Write the transformers folder, the GGUF files, the Modelfile and the model card.

    They go to the folder `export` of the run. A shipped model is imported into a run first.
    """
    from keylm.run import open_run
    from keylm.shipped import shipped_model

    if shipped := shipped_model(recipe):
        from keylm.commands.import_model import open_shipped

        recipe = open_shipped(shipped, run_).folder
    _run_stage("export", recipe, set_, run_, remake)
    if web:
        from keylm.serve.static_page import write_static_page

        write_static_page(open_run(recipe, set_, run_), wllama)


@app.command(rich_help_panel=_USE)
def chat(
    model: ExportedModel = None,
    system: Annotated[str, typer.Option(help="System prompt (none by default).")] = "",
    temperature: Annotated[
        float | None,
        typer.Option(help="Sampling temperature; 0 is greedy (default: the model's own).", callback=_within(0, 100)),
    ] = None,
    threads: Threads = None,
) -> None:
    """Chat with an exported model in the terminal. A question may also be piped in."""
    from keylm.serve.terminal import run_chat

    run_chat(model, system=system, temperature=temperature, num_threads=threads)


@app.command(rich_help_panel=_USE)
def serve(
    model: ExportedModel = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", callback=_within(0, 65_535))] = 8080,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="KEYLM_API_KEY", help="Key that clients must send; required if HOST is not local."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Further name of the server, such as its proxy's: requests for others are refused."),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="Site whose pages may ask the server, such as https://example.org (default: none)."),
    ] = None,
    threads: Threads = None,
) -> None:
    """Serve an exported model: an OpenAI-compatible API and a chat page."""
    from keylm.serve.server import run_server

    run_server(
        model,
        host=host,
        port=port,
        num_threads=threads,
        api_key=api_key,
        hosts=allow_host or (),
        origins=cors or (),
    )


@app.command(rich_help_panel=_USE)
def push(
    run_folder: RunFolder,
    repository: Annotated[str, typer.Argument(help="Repository on the Hugging Face hub, as OWNER/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private if it is new.")] = False,
) -> None:
    """Publish a run's export on the Hugging Face hub."""
    from keylm.export.hub_upload import upload_to_hub
    from keylm.run import open_run

    print(upload_to_hub(open_run(run_folder), repository, private))


@app.command(name="import", rich_help_panel=_USE)
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="Transformers folder; or, unless a folder of that name is here, the shipped keylm-nano or "
            "keylm-nano-base, or the name of a model on the Hugging Face hub."
        ),
    ],
    recipe: Annotated[
        Path | None,
        typer.Argument(help="Recipe (.yaml) with what is yours: name, sources, tokens. The sizes are the model's."),
    ] = None,
    run_: Folder = None,
) -> None:
    """Make a run from an existing Qwen3 model, to train it further, evaluate, export or serve it."""
    from keylm.commands.import_model import import_model, show_next_steps

    run = import_model(source, run_, recipe)
    print(run.folder)
    show_next_steps(run)


@app.command(rich_help_panel=_INSPECT)
def info(recipe: RecipeOrRun, set_: Overrides = None) -> None:
    """Show parameters, tokens, operations and memory of a recipe, and the time it takes on this machine."""
    from keylm.commands.info import show_info

    show_info(recipe, set_)


@app.command(rich_help_panel=_INSPECT)
def sources(
    recipe: Annotated[
        Path | None, typer.Argument(help="Recipe or run folder (default: the data sets that recipes can name).")
    ] = None,
    set_: Overrides = None,
) -> None:
    """List the sources of a recipe, or all presets, and what of them is on this machine.

    Nothing is downloaded and no server is asked.
    """
    from keylm.commands.sources import show_sources

    show_sources(recipe, set_)


@app.command(rich_help_panel=_INSPECT)
def preview(
    run_folder: RunFolder,
    step: Annotated[int, typer.Option(help="Training step, from 0.", callback=_within(0))] = 0,
    stage: Annotated[str, typer.Option(help="Training stage: `pretrain` or `sft`.")] = "sft",
    rows: Annotated[int, typer.Option(help="Number of sequences to show.", callback=_within(1))] = 2,
) -> None:
    """Show the batch of any training step: sources, documents, and which tokens have a loss."""
    from keylm.commands.preview import show_preview
    from keylm.run import open_run

    show_preview(open_run(run_folder), stage, step, rows)


@app.command(name="ls", rich_help_panel=_INSPECT)
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Folder with runs.")] = Path("runs"),
) -> None:
    """List runs: size, tokens of pretraining and SFT, bits per byte, instructions followed, time, how far they are."""
    from keylm.commands.list_runs import show_runs

    show_runs(folder)


@app.command(rich_help_panel=_INSPECT)
def compare(
    run_folders: Annotated[list[Path], typer.Argument(help="Run folders, two or more.")],
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
) -> None:
    """Compare runs: their curves over one another on one page, their scores, and where their recipes differ."""
    from keylm.commands.compare import compare_runs
    from keylm.run import open_run

    compare_runs([open_run(folder) for folder in run_folders], output)


@app.command(rich_help_panel=_INSPECT)
def watch(
    run_folder: RunFolder,
    once: Annotated[bool, typer.Option("--once", help="Print the present state and exit.")] = False,
    web: Annotated[bool, typer.Option("--web", help="Show it on a page in the browser, with curves.")] = False,
    port: Annotated[
        int, typer.Option(help="Port of the page, on this machine only.", callback=_within(0, 65_535))
    ] = 8081,
) -> None:
    """Watch a run that another process trains: loss, speed, memory, time left, validation, samples, skipped steps."""
    from keylm.run import open_run

    if web:
        from keylm.commands.watch_page import serve_watch_page

        serve_watch_page(open_run(run_folder), port)
    else:
        from keylm.commands.watch import show_watch

        show_watch(open_run(run_folder), once)


@app.command(rich_help_panel=_INSPECT)
def sample(
    run_folder: RunFolder,
    prompt: Annotated[
        str | None, typer.Argument(help="Text to continue, or what the user says (default: the first held-out ones).")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Training stage, such as `pretrain` (default: the latest one with weights).")
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(help="Step of a checkpoint of that stage (default: the final weights).", callback=_within(1)),
    ] = None,
) -> None:
    """Let a base model continue text, or a tuned one answer; also from a checkpoint in the middle of training.

    Without a prompt, it shows the first held-out texts or conversations of the run, beside what these say.
    """
    from keylm.commands.sample import show_samples
    from keylm.run import open_run

    show_samples(open_run(run_folder), prompt, stage, step)


@app.command(rich_help_panel=_INSPECT)
def report(
    run_folder: RunFolder,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write them to (default: the run folder), if that is read-only.")
    ] = None,
) -> None:
    """Write results.json and report.html of a run again, and print the headlines."""
    from keylm.commands.report import write_results
    from keylm.run import open_run

    write_results(open_run(run_folder), output)


@app.command(rich_help_panel=_INSPECT)
def doctor(
    folder: Annotated[Path, typer.Argument(help="Where runs will be written; its disk is checked.")] = Path(),
) -> None:
    """Check what is installed, what this machine can do, and how to get what is missing.

    The exit code is 1 if a stage cannot run.
    """
    from keylm.commands.doctor import show_doctor

    if not show_doctor(folder):
        raise typer.Exit(1)


@app.command(rich_help_panel=_INSPECT)
def docs(
    page: Annotated[str, typer.Argument(help="Page, such as recipe or sources (default: the list of all).")] = "index",
) -> None:
    """Show a page of the documentation."""
    from keylm.commands.docs import show_page

    show_page(page)


def main() -> None:
    """Run the command line. Whatever goes wrong is printed as one sentence, with an exit code and no traceback."""
    import sys

    # What a terminal's encoding lacks is shown as an escape. Otherwise a model's word could end the program.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception as error:
        # From the arguments, because the value that typer parsed is lost when `app` raises.
        if "--debug" in sys.argv:
            raise
        failure = as_keylm_error(error)
        print(f"keylm: {failure}", file=sys.stderr)
        sys.exit(failure.exit_code)


def _set_offline(offline: bool) -> None:
    if offline:
        # The hub's libraries read the variable when they are imported, and worker processes inherit it.
        os.environ["HF_HUB_OFFLINE"] = "1"


def _run_stage(name: str, recipe: Path, overrides: list[str] | None, folder: Path | None, remake: str | None) -> None:
    from keylm import stages
    from keylm.run import open_run

    stages.run_until(open_run(recipe, overrides, folder), name, remake)


if __name__ == "__main__":
    main()
