"""A report for people: Markdown for documents, tables for a terminal."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from services.teacher.audit.report import AttackResult, AuditReport, Counted, ImpostorResult

NONE = "-"
WIDE = 110


def headline(report: AuditReport) -> str:
    """One sentence: how many attacks gain, and how many impostors are paid better than weak stories."""
    paying = f"{len(report.paying)} of {len(report.attacks)} attacks gain beyond chance"
    above = (
        f"{len(report.above_weak)} of {len(report.impostors)} kinds of text without a story score above weak stories"
    )
    return f"{_named(paying, report.paying)}; {_named(above, report.above_weak)}."


def about(report: AuditReport) -> str:
    """Who was audited, and by what."""
    t = report.teacher
    size = ", quick" if report.quick else ""
    return (
        f"Teacher {t.backend} ({t.model}, revision {t.revision}), rubric {t.rubric} {t.rubric_version}, mode {t.mode}. "
        f"Suite {report.suite}, seed {report.seed}{size}: {report.verdicts:,} verdicts."
    )


def totals(report: AuditReport) -> str:
    """What the unchanged stories got."""
    shown = ", ".join(f"{grade} {_number(total)}" for grade, total in report.base.items())
    return f"Totals run from 0 to {report.max_total}. Unchanged stories, by our own grade for them: {shown}."


def markdown(report: AuditReport) -> str:
    """The whole report as Markdown."""
    lines = [about(report), "", totals(report), "", headline(report), ""]
    lines += _markdown_table(_attack_head(report), [_attack_cells(a, report) for a in report.attacks])
    lines += ["", "Texts that hold no story:", ""]
    lines += _markdown_table(_impostor_head(report), [_impostor_cells(i, report) for i in report.impostors])
    return "\n".join(lines) + "\n"


def table(report: AuditReport) -> RenderableType:
    """The whole report for a terminal; what gains is red. Flags are named where the terminal has WIDE columns."""
    return _Tables(report)


class _Tables:
    """Fitted to the console when it is printed."""

    def __init__(self, report: AuditReport) -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        report, wide = self._report, options.max_width >= WIDE
        short = [name[:4] for name in _criteria(report)]
        numbers = ["gain", "95 % interval", "up", "most", *short, "flag"]
        rows = [(a.family, _attack_cells(a, report), a.pays) for a in report.attacks]
        yield _rich_table(["attack", *numbers], rows, wide=wide)
        yield ""
        numbers = ["total", "most", *short, "flag"]
        found = [("", _impostor_cells(i, report), i.name in report.above_weak) for i in report.impostors]
        yield _rich_table(["text without a story", *numbers], found, wide=wide)
        yield ""
        yield Text("up: share of stories that gained; most: largest; flag: share with a new flag", "dim")
        if failed := sum(r.failed + r.refused for r in (*report.attacks, *report.impostors)):
            yield Text(f"{failed} verdicts failed or were refused; they count as no number", "yellow")
        yield Text(headline(report), "bold")
        yield Text(totals(report))
        yield Text(about(report), "dim")


def _attack_head(report: AuditReport) -> list[str]:
    criteria = list(_criteria(report))
    return ["attack", "gain", "95 % interval", "gained", "largest", *criteria, "flagged", "flags", "no number"]


def _attack_cells(a: AttackResult, report: AuditReport) -> list[str]:
    interval = f"{a.gain.low:+.2f} to {a.gain.high:+.2f}" if a.gain is not None else NONE
    gained = f"{a.gained:.0%}" if a.gained is not None else NONE
    mean = _signed(a.gain.mean) if a.gain is not None else NONE
    levels = [_signed((a.criteria or {}).get(name)) for name in _criteria(report)]
    return [a.name, mean, interval, gained, _signed(a.largest), *levels, *_counts(a)]


def _impostor_head(report: AuditReport) -> list[str]:
    return ["text", "mean total", "largest", *_criteria(report), "flagged", "flags", "no number"]


def _impostor_cells(i: ImpostorResult, report: AuditReport) -> list[str]:
    levels = [_number((i.criteria or {}).get(name)) for name in _criteria(report)]
    return [i.name, _number(i.total), _number(i.largest), *levels, *_counts(i)]


def _criteria(report: AuditReport) -> Mapping[str, float]:
    """The criteria's names, from any result that has numbers."""
    results: Sequence[AttackResult | ImpostorResult] = (*report.attacks, *report.impostors)
    return next((r.criteria for r in results if r.criteria), {})


def _counts(c: Counted) -> list[str]:
    missing = [f"{n} {what}" for n, what in ((c.failed, "failed"), (c.refused, "refused")) if n]
    return [f"{c.flagged:.0%}", ", ".join(c.flags), ", ".join(missing)]


def _named(sentence: str, names: Sequence[str]) -> str:
    return f"{sentence} ({', '.join(names)})" if names else sentence


def _signed(value: float | None) -> str:
    return f"{value:+.2f}" if value is not None else NONE


def _number(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else NONE


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _rich_table(head: Sequence[str], rows: Sequence[tuple[str, list[str], bool]], *, wide: bool) -> Table:
    """Rows of (family, cells with flags and missing numbers at the end, whether it is a hole), each family headed."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    made.add_column(head[0], overflow="fold", max_width=34 if wide else 24)
    for name in head[1:]:
        made.add_column(name, justify="right", no_wrap=True)
    if wide:
        made.add_column("flags", overflow="fold")
    for family, group in groupby(rows, key=lambda row: row[0]):
        if family:
            made.add_row(Text(family, "italic dim"))
        for _, cells, hole in group:
            shown = [*cells[: len(head)], *(cells[-2:-1] if wide else ())]
            made.add_row(*(cell.replace(" to ", " ") for cell in shown), style="bold red" if hole else None)
    return made
