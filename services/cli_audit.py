"""`fabula teacher audit`."""

from typing import Annotated

import typer

from services.local.errors import CommandError


def audit(
    url: Annotated[
        str | None,
        typer.Option(help="A running teacher, such as http://localhost:8001 or http://localhost:8001?teacher=NAME."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Who judges in this process: rules: (the default), transformers:FOLDER, ..., or a name of "
            "FABULA_TEACHERS_FILE. FABULA_TEACHER in the environment does the same."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option(help="6 base stories in place of 20: some 500 verdicts, not 1,650.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the attacks' random choices.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
) -> None:
    """Measure how easily a teacher is fooled: every attack of a built-in suite, and what it gains.

    Our stories are judged as they are, and changed in ways that make them no better: scores and orders slipped in,
    markers forged, text repeated, padded, stuffed or shuffled. For each way: mean gain of the total with a 95 %
    interval, and the share that was flagged. Texts that hold no story are judged, too. docs/hard-to-fool.md explains
    each number.
    """
    if as_json and as_markdown:
        raise CommandError("--json and --markdown exclude each other; give one of them")
    if teacher is not None and url is not None:
        raise CommandError("--teacher judges here and --url asks a running teacher; give one of them")
    from rich.console import Console

    from services.local import http
    from services.local.auditing import run_audit
    from services.local.choices import chosen_teacher
    from services.teacher.audit import markdown, table

    side = chosen_teacher(teacher) if url is None else http.checked_url(url)
    report = run_audit(side, seed=seed, quick=quick, console=Console(stderr=True))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    elif as_markdown:
        typer.echo(markdown(report), nl=False)
    else:
        Console().print(table(report))
