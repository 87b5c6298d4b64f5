"""The command line: one short command per stage. Parse, call, print."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from keylm.common.errors import KeyLMError, UserError

app = typer.Typer(
    name="keylm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeOrRun = Annotated[Path, typer.Argument(help="A recipe (.yaml), or a run folder, which holds its recipe.")]
Measured = Annotated[
    Path,
    typer.Argument(help="A recipe (.yaml) or a run folder; or somebody's model: a .gguf file, a transformers folder."),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, such as runs/quickstart.")]
Exported = Annotated[Path, typer.Argument(help="A run that is exported, an export folder, or a .gguf file.")]
Threads = Annotated[int | None, typer.Option(help="Threads that compute (default: one per physical core).")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a field of the recipe, such as train.tokens=2e6; repeatable."
    ),
]
Folder = Annotated[Path | None, typer.Option("--run", help="The run folder to fill (default: runs/NAME).")]
Offline = Annotated[bool, typer.Option("--offline", help="Ask no server: read only what was downloaded before.")]

_STAGES = "Stages"
_USE = "Use a model"
_LOOK = "Inspect"


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Raw text in, a small chat model out.

    A [bold]recipe[/] is one YAML file that says everything about a model. A [bold]run[/] is the folder that it fills,
    stage by stage: tokenizer → prepare → pretrain → sft → eval → export, with dpo and grpo after sft where the
    recipe asks for them. Every stage can be stopped at any time and resumes where it was; finished stages are skipped.

    Start with:  keylm run recipes/quickstart.yaml
    """


@app.command(rich_help_panel=_STAGES)
def run(recipe: RecipeOrRun, set_: Overrides = None, run_: Folder = None, offline: Offline = False) -> None:
    """Run every stage that is missing, then write results.json and report.html."""
    _set_offline(offline)
    from keylm import stages
    from keylm.commands.report import write_results
    from keylm.common import ranks
    from keylm.run import open_run

    opened = open_run(recipe, set_, run_)
    stages.run_all(opened)
    if ranks.is_main_process():
        write_results(opened)


@app.command(rich_help_panel=_STAGES)
def tokenizer(recipe: RecipeOrRun, set_: Overrides = None, run_: Folder = None, offline: Offline = False) -> None:
    """Train the tokenizer on a sample of the sources."""
    _set_offline(offline)
    _stage("tokenizer", recipe, set_, run_)


@app.command(rich_help_panel=_STAGES)
def prepare(recipe: RecipeOrRun, set_: Overrides = None, run_: Folder = None, offline: Offline = False) -> None:
    """Clean and tokenize the sources into token shards."""
    _set_offline(offline)
    _stage("prepare", recipe, set_, run_)


@app.command(rich_help_panel=_STAGES)
def pretrain(recipe: RecipeOrRun, set_: Overrides = None, run_: Folder = None) -> None:
    """Pretrain from scratch on the mixture of text."""
    _stage("pretrain", recipe, set_, run_)


@app.command(rich_help_panel=_STAGES)
def sft(recipe: RecipeOrRun, set_: Overrides = None, run_: Folder = None) -> None:
    """Fine-tune on conversations, with the loss on the assistant's tokens only."""
    _stage("sft", recipe, set_, run_)


@app.command(rich_help_panel=_STAGES)
def dpo(recipe: RecipeOrRun, set_: Overrides = None, run_: Folder = None) -> None:
    """Preference tuning, if the recipe has `dpo`: a verified answer over a copy that violates one constraint."""
    _stage("dpo", recipe, set_, run_)


@app.command(rich_help_panel=_STAGES)
def grpo(recipe: RecipeOrRun, set_: Overrides = None, run_: Folder = None) -> None:
    """Reinforcement learning with rule-based rewards, if the recipe has `grpo`."""
    _stage("grpo", recipe, set_, run_)


@app.command(name="eval", rich_help_panel=_STAGES)
def evaluate(
    recipe: Measured,
    tasks: Annotated[str, typer.Option(help="lm_eval tasks, separated by commas, such as hellaswag,piqa.")] = "",
    data: Annotated[Path | None, typer.Option(help="Folder with the tasks' data files, for use offline.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Documents per task (default: all), or instructions per split.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also choose without the question (the eval stage always does).")
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(
            help="Also write what is printed to this file, with seed, versions, and hashes of weights and data."
        ),
    ] = None,
    set_: Overrides = None,
    run_: Folder = None,
) -> None:
    """Evaluate: bits per byte, held-out instructions, and lm_eval tasks.

    Without --tasks this is the eval stage of a run, or, for any other model, the score on the held-out instructions.
    With --tasks it scores a run or a model on those lm_eval tasks, next to the published scores. Only the stage writes
    to the run; other scores are printed.
    """
    from keylm.commands import evaluate as commands
    from keylm.evaluate.external_models import is_external

    if not is_external(recipe) and not tasks:
        if json:
            raise UserError("--json needs --tasks: the eval stage writes its scores to its folder and to results.json")
        _stage("eval", recipe, [*(set_ or []), *([f"eval.data={data}"] if data else [])], run_)
    elif tasks:
        from keylm.run import open_run

        model = recipe if is_external(recipe) else open_run(recipe, set_, run_)
        commands.score_tasks(model, tasks.split(","), limit=limit, data=data, baselines=baselines, json=json)
    else:
        commands.score_instructions(recipe, per_split=limit, json=json)


@app.command(rich_help_panel=_STAGES)
def export(
    recipe: RecipeOrRun,
    web: Annotated[
        bool, typer.Option("--web", help="Also write a page that runs the model in the browser (npm fetches wllama).")
    ] = False,
    wllama: Annotated[
        Path | None,
        typer.Option(envvar="KEYLM_WLLAMA", help="The folder of an installed @wllama/wllama: --web asks no npm then."),
    ] = None,
    set_: Overrides = None,
    run_: Folder = None,
) -> None:
    """Write the transformers folder, the GGUF files, the Modelfile and the model card."""
    _stage("export", recipe, set_, run_)
    if web:
        from keylm.run import open_run
        from keylm.serve.static_page import write_static_page

        write_static_page(open_run(recipe, set_, run_), wllama)


@app.command(rich_help_panel=_USE)
def chat(
    model: Exported,
    system: Annotated[str, typer.Option(help="System prompt (none by default).")] = "",
    temperature: Annotated[
        float | None, typer.Option(help="0: the likeliest token (default: the model's own).")
    ] = None,
    threads: Threads = None,
) -> None:
    """Talk to an exported model in the terminal; a question may also be piped in."""
    from keylm.serve.terminal import run_chat

    run_chat(model, system=system, temperature=temperature, num_threads=threads)


@app.command(rich_help_panel=_USE)
def serve(
    model: Exported,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="KEYLM_API_KEY", help="What clients must show; needed where others can reach the server."),
    ] = None,
    threads: Threads = None,
) -> None:
    """Serve an exported model: an OpenAI-compatible API and a web page to chat on."""
    from keylm.serve.server import run_server

    run_server(model, host=host, port=port, num_threads=threads, api_key=api_key)


@app.command(rich_help_panel=_USE)
def push(
    run_folder: RunFolder,
    repository: Annotated[str, typer.Argument(help="Repository on the Hugging Face hub, as OWNER/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Publish a run's export on the Hugging Face hub."""
    from keylm.export.hub_upload import upload
    from keylm.run import open_run

    print(upload(open_run(run_folder), repository, private))


@app.command(name="import", rich_help_panel=_USE)
def import_(
    source: Annotated[str, typer.Argument(help="A transformers folder, or a model's name on the Hugging Face hub.")],
    run_: Folder = None,
    base: Annotated[bool, typer.Option("--base", help="Leave the sft stage to do, on the imported weights.")] = False,
) -> None:
    """Make a run of a Qwen3 model that somebody else trained, to tune, measure, export or serve it."""
    from keylm.commands.import_model import import_model

    print(import_model(source, run_, base).folder)


@app.command(rich_help_panel=_LOOK)
def info(recipe: RecipeOrRun, set_: Overrides = None) -> None:
    """Show a recipe's parameters, tokens, operations, memory, and the time it takes on this machine."""
    from keylm.commands.info import show_info

    show_info(recipe, set_)


@app.command(rich_help_panel=_LOOK)
def sources(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe or a run folder (default: all that is known).")
    ] = None,
    set_: Overrides = None,
) -> None:
    """List the data sets that recipes can name, or a recipe's sources, and what of them is on this machine.

    Nothing is downloaded and no server is asked.
    """
    from keylm.commands.sources import show_sources

    show_sources(recipe, set_)


@app.command(rich_help_panel=_LOOK)
def preview(
    run_folder: RunFolder,
    step: Annotated[int, typer.Option(help="Step of training, counted from 0.")] = 0,
    stage: Annotated[str, typer.Option(help="`pretrain` or `sft`.")] = "sft",
    rows: Annotated[int, typer.Option(help="How many sequences to show.")] = 2,
) -> None:
    """Show the batch of any training step in colours: source, documents, and what is learned from."""
    from keylm.commands.preview import show_preview
    from keylm.run import open_run

    show_preview(open_run(run_folder), stage, step, rows)


@app.command(rich_help_panel=_LOOK)
def watch(
    run_folder: RunFolder,
    once: Annotated[bool, typer.Option("--once", help="Print what there is now, and end.")] = False,
) -> None:
    """Watch a run that trains in another process: loss, speed, memory, time left, bits per byte, skipped steps."""
    from keylm.commands.watch import show_watch
    from keylm.run import open_run

    show_watch(open_run(run_folder), once)


@app.command(rich_help_panel=_LOOK)
def report(run_folder: RunFolder) -> None:
    """Rewrite a run's results.json and report.html."""
    from keylm.commands.report import write_results
    from keylm.run import open_run

    write_results(open_run(run_folder))


@app.command(rich_help_panel=_LOOK)
def doctor(
    folder: Annotated[Path, typer.Argument(help="Where runs will lie: its disk is looked at.")] = Path(),
) -> None:
    """Show what is installed, what this machine can do, and how to get what is missing.

    The exit code is 1 if a stage cannot run.
    """
    from keylm.commands.doctor import show_doctor

    if not show_doctor(folder):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; a failure on purpose is one sentence and an exit code, without a traceback."""
    import sys

    try:
        app()
    except KeyLMError as error:
        if "--debug" in sys.argv:
            raise
        print(f"keylm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _set_offline(offline: bool) -> None:
    """Tell the hub's libraries, which read it when they are imported, and every process that is started from here."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _stage(name: str, recipe: Path, overrides: list[str] | None, folder: Path | None) -> None:
    from keylm import stages
    from keylm.run import open_run

    stages.run_until(open_run(recipe, overrides, folder), name)


if __name__ == "__main__":
    main()
