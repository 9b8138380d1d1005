"""`fabula teacher`: what can be asked about a teacher. What the commands do is in services.local."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli_audit import audit
from services.local.errors import CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from fabula_proto import Message
    from services.local.agreement_tables import Part

SIDE_HELP = (
    "A judge such as rules: or transformers:FOLDER, a name of FABULA_TEACHERS_FILE, the URL of a running teacher such "
    "as http://localhost:8001 or http://localhost:8001?teacher=NAME, or a recording: a file with an answer of "
    "POST /score on each line, or RATINGS.jsonl#JUDGE, where JUDGE is human or a language model of the file."
)

teacher_app = typer.Typer(
    help="Ask about a teacher: how it agrees with another one and with people, and how easily it is fooled.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
teacher_app.command()(audit)


class Split(StrEnum):
    """Which half of the prompts."""

    TEST = "test"
    TUNE = "tune"
    ALL = "all"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")]


@teacher_app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=SIDE_HELP, show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Who is compared with A; the same forms.", show_default=False)],
    stories: Annotated[
        Path,
        typer.Option(
            help="Stories for both: .jsonl or .jsonl.gz with `text` or `story` (and, if wanted, `story_id`, `prompt`), "
            "or the folder of a run.",
            show_default=False,
        ),
    ],
    limit: Annotated[int | None, typer.Option(min=2, help="At most so many stories, evenly spread.")] = None,
    map_out: Annotated[
        Path | None, typer.Option(help="Write the map from B's reward to A's scale, for `reward_map` of B.")
    ] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
) -> None:
    """Have two teachers judge the same stories: agreement per criterion, and a map that keeps the scale of rewards.

    Weighted kappa, Spearman, bias and tables of levels for each criterion, the total and the reward. Stories without a
    verdict on both sides are counted and left out. docs/calibration.md explains each number.
    """
    _one_form(as_json, as_markdown)
    from services.local import agreement_tables, calibrating

    comparison = calibrating.compare(a, b, stories, limit, map_out, _stderr())
    # Before the map: where there is none, or it cannot be written, what was judged is not lost.
    _print(comparison, agreement_tables.comparison_parts(comparison), as_json, as_markdown)
    if map_out is not None:
        typer.echo(calibrating.save_map(comparison, map_out), err=True)


@teacher_app.command()
def calibrate(
    ratings: Annotated[
        Path,
        typer.Option(
            help="Stories with people's ratings: JSON Lines of {story_id, text or story, prompt, human: {criterion: "
            "[ratings]}, llm: {judge: {criterion: rating}}}, as HANNA's.",
            show_default=False,
        ),
    ],
    teacher: Annotated[
        str | None, typer.Option(help="Who judges: rules: (the default), transformers:FOLDER, ...; see `compare`.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Ask a running teacher, such as http://localhost:8001?teacher=NAME.")
    ] = None,
    split: Annotated[
        Split,
        typer.Option(help="Half of the prompts, by their hash. The rules judge was fitted on tune: judge it by test."),
    ] = Split.TEST,
    leave_out: Annotated[
        list[str] | None, typer.Option(metavar="SYSTEM", help="Leave out the stories of a `system`; may be repeated.")
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS",
            help="Compare our criterion (or total) with this human one; may be repeated. Left out: what goes together, "
            "such as coherence=coherence and creativity=engagement.",
        ),
    ] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
) -> None:
    """Compare a teacher with people's ratings, next to word count, to language models, and to the human ceiling.

    Rank correlation with the mean rating, how much more that is than word count's, and what is left of it at equal word
    count, with intervals from a bootstrap over prompts. docs/calibration.md explains each number and the file.
    """
    _one_form(as_json, as_markdown)
    if teacher is not None and url is not None:
        raise CommandError("--teacher judges here and --url asks a running teacher; give one of them")
    from services.local import agreement_tables, calibrating, http
    from services.local.choices import chosen_teacher

    side = chosen_teacher(teacher) if url is None else http.checked_url(url)
    found = calibrating.calibrate(side, ratings, split.value, leave_out or (), pair or (), _stderr())
    _print(found, agreement_tables.calibration_parts(found), as_json, as_markdown)


def _one_form(as_json: bool, as_markdown: bool) -> None:
    if as_json and as_markdown:
        raise CommandError("--json and --markdown exclude each other; give one of them")


def _print(report: "Message", parts: Iterator["Part"], as_json: bool, as_markdown: bool) -> None:
    from services.local import agreement_tables

    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    elif as_markdown:
        typer.echo(agreement_tables.markdown(parts))
    else:
        from rich.console import Console

        agreement_tables.show(parts, Console())


def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True)
