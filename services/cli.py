"""The `fabula` command. Options and help are here; what they do is in services.local, imported when it is asked for."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli_download import download_app
from services.cli_evaluation import evaluation_app
from services.cli_runs import runs_app
from services.cli_teacher import teacher_app
from services.local.errors import CommandError, Interrupted

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="Fabula teaches small language models to tell stories by a teacher's verdicts.",
    epilog="Start with: fabula up --preset laptop",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(teacher_app, name="teacher")
app.add_typer(runs_app)
app.add_typer(evaluation_app)
app.add_typer(download_app)

RunsDir = Annotated[Path, typer.Option(help="Folder that holds a folder for each run.")]
RunDir = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/laptop-1a2b3c.", show_default=False)]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Size of the run: smoke (about a minute on two quiet cores), laptop (minutes; the default) or paper "
        "(needs GPUs)."
    ),
]
Run = Annotated[
    str | None,
    typer.Option(help="Name of the run. Left out, it follows from the settings, so the same command continues it."),
]
Corpus = Annotated[
    str | None,
    typer.Option(
        help="Text to pretrain on: .txt, .train, .jsonl, .jsonl.gz, a folder of them, or hf:<dataset id>. "
        "Left out: a story grammar of our own."
    ),
]
EvalData = Annotated[
    str | None,
    typer.Option(
        "--eval-data",
        "--data",
        help="Folder in the BabyLM 2025 evaluation_data layout, or hub:OWNER/NAME[@REVISION] for a dataset with one. "
        "Left out: small generated test items.",
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        help="Who judges: rules: (no weights; the default), transformers:<hub name or folder>, a server (tgi:URL, "
        "vllm:URL, sglang:URL, llamacpp:URL, ollama:MODEL, openai:MODEL; URL#MODEL names one of a server's models), or "
        "a name of FABULA_TEACHERS_FILE. FABULA_TEACHER in the environment does the same."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting, such as interact.batch_size=64 or seed=43; may be repeated.",
    ),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(help="A running Redis or Valkey, such as redis://localhost:6379/0. Left out: one is started."),
]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Taken? Then a free one is used, and said.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def up(
    preset: Preset = None,
    runs_dir: RunsDir = Path("runs"),
    run: Run = None,
    corpus: Corpus = None,
    eval_data: EvalData = None,
    teacher: Teacher = None,
    overrides: Overrides = None,
    teacher_port: Port = 8001,
    evaluator_port: Port = 8002,
    redis_url: RedisUrl = None,
    stay: Annotated[bool, typer.Option(help="Keep the page and the teacher running at the end, until Ctrl-C.")] = False,
) -> None:
    """Run the whole loop here: Redis, teacher, evaluator and trainer as child processes, then a table of the gains.

    Ctrl-C saves and stops everything; the same command goes on from there. A finished run shows its table again.
    """
    from services.local.plan import Request
    from services.local.up import Options
    from services.local.up import up as run_up

    request = Request(runs_dir, preset, run, corpus, eval_data, teacher, tuple(overrides or ()))
    raise typer.Exit(run_up(request, Options(teacher_port, evaluator_port, redis_url, stay), _console()))


@app.command()
def report(run_dir: RunDir) -> None:
    """Print the table of a run again: what it gained, what it cost, stories from its first and last update."""
    from services.local import summary, table

    table.show(summary.summarise(run_dir.expanduser().resolve()), _console())


@app.command()
def score(
    text: Annotated[str | None, typer.Argument(help="The story; - reads it from standard input.")] = None,
    file: Annotated[Path | None, typer.Option(help="Read the story from a UTF-8 file.")] = None,
    teacher: Teacher = None,
    url: Annotated[str | None, typer.Option(help="Ask a running teacher, such as http://localhost:8001.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have one story judged, here or by a running teacher."""
    from services.local import http, scoring

    if teacher is not None and url is not None:
        raise CommandError("--teacher judges here and --url asks a running teacher; give one of them")
    texts = [_story(text, file)]
    response = http.score(url, texts) if url is not None else scoring.score_here(teacher, texts)
    if as_json:
        typer.echo(response.model_dump_json(indent=2))
    else:
        scoring.show(response, texts, _console())


@app.command()
def pretrain(
    preset: Preset = None,
    runs_dir: RunsDir = Path("runs"),
    run: Run = None,
    corpus: Corpus = None,
    eval_data: EvalData = None,
    teacher: Teacher = None,
    overrides: Overrides = None,
) -> None:
    """Only the first half of `up`: next-word prediction up to the word budget. Continues where it was.

    Takes the options that name the run, so that `up` with the same options goes on with it.
    """
    from services.local.plan import Request
    from services.local.up import pretrain as run_pretrain

    request = Request(runs_dir, preset, run, corpus, eval_data, teacher, tuple(overrides or ()))
    raise typer.Exit(run_pretrain(request, _console()))


@app.command()
def interact(
    run_dir: RunDir,
    redis_url: RedisUrl = None,
    teacher_port: Port = 8001,
) -> None:
    """Only the second half of `up`: a pretrained run learns from its teacher. Continues where it was.

    With --redis-url, teachers that listen there judge and none is started; else Redis and the run's teacher are.
    """
    from services.local.up import interact as run_interact

    raise typer.Exit(run_interact(run_dir, redis_url, teacher_port, _console()))


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint.", show_default=False)],
    eval_data: EvalData = None,
    teacher: Teacher = None,
    teacher_url: Annotated[str | None, typer.Option(help="A running teacher. Left out: one is started.")] = None,
    suites: Annotated[
        str | None,
        typer.Option(
            help="What to measure, with commas between, such as blimp,entity,reading,glue. Left out: all that the data "
            "allow but glue, which takes hours; without data, what has generated items."
        ),
    ] = None,
    stories: Annotated[int | None, typer.Option(min=1, help="Stories to write; the run's own number or 200.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew what is finished with the same settings.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the report; left out: evaluations/ of the run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure one checkpoint: the BabyLM benchmarks, and stories judged by a teacher.

    A finished suite is kept at once, so the same command goes on where it was stopped. FABULA_EVALUATOR_<NAME> in the
    environment sets everything else (docs/evaluation.md). Exit status 1 where a suite failed; one without data is
    skipped.
    """
    from services.local import evaluating
    from services.local.choices import checked_eval_data, checked_teacher, chosen_teacher

    if teacher is not None and teacher_url is not None:
        raise CommandError("--teacher starts a teacher and --teacher-url asks a running one; give one of them")
    what = evaluating.What(
        checkpoint,
        checked_eval_data(eval_data),
        checked_teacher(chosen_teacher(teacher)),
        teacher_url,
        evaluating.chosen_suites(suites),
        stories,
        output,
        again,
    )
    report, folder = evaluating.evaluate(what, _console(stderr=True))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        evaluating.show(report, folder, _console())
    if any(suite.status == "failed" for suite in report.suites):
        raise typer.Exit(1)


@app.command()
def doctor(runs_dir: RunsDir = Path("runs"), teacher: Teacher = None) -> None:
    """Say what this machine has and lacks, with the cure for each. Exits 1 when the default loop cannot run."""
    from services.local.choices import chosen_teacher
    from services.local.doctor import doctor as run_doctor

    raise typer.Exit(run_doctor(runs_dir, chosen_teacher(teacher), _console()))


def _story(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise CommandError("give the story as TEXT, as - for standard input, or with --file; exactly one of them")
    try:
        if file is not None:
            return file.read_text(encoding="utf-8")
        return sys.stdin.read() if text == "-" else text or ""
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"the story cannot be read: {error}; expected UTF-8 text") from error


def _console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr)


def main() -> None:
    """Entry point: errors that the user can act on are printed without a traceback."""
    gc.set_threshold(1_000_000)  # torch and transformers make as many objects, none of them garbage: 1 s of looking
    try:
        guarded(app)
    finally:
        gc.freeze()  # else Python's end looks through all of torch and transformers once more: 1.5 s


def guarded(command: Callable[[], object]) -> None:
    """Run `command`; a CommandError becomes its message and its exit status, a signal 130."""
    try:
        command()
    except Interrupted:
        raise SystemExit(130) from None
    except CommandError as error:
        print(f"fabula: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
