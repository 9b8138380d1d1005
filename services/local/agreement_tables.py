"""Tables of agreement: between two teachers, and of a teacher with people. On a terminal or in Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from fabula_proto import TeacherIdentity
from services.teacher.calibration.agreement import Calibration, HumanAgreement
from services.teacher.calibration.comparison import Agreement, Comparison, MapReport
from services.teacher.calibration.estimates import Estimate
from services.teacher.calibration.linking import ScaleError


@dataclass(frozen=True)
class Sheet:
    """A table; the first `texts` columns are words, the others numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


Part = Sheet | str


def show(parts: Iterator[Part], console: Console) -> None:
    """Print sentences and tables to a terminal."""
    for part in parts:
        if isinstance(part, str):
            console.print(f"\n{part}", highlight=False, markup=False)
            continue
        console.print(f"\n{part.title}", style="bold", highlight=False, markup=False)
        table = Table(box=box.SIMPLE_HEAD)
        table.show_edge, table.pad_edge, table.padding = False, False, (0, 1, 0, 0)
        for number, column in enumerate(part.columns):
            table.add_column(column, justify="left" if number < part.texts else "right", overflow="fold")
        for row in part.rows:
            table.add_row(*row)
        console.print(table)


def markdown(parts: Iterator[Part]) -> str:
    """The same as Markdown."""
    return "\n\n".join(part if isinstance(part, str) else _markdown_table(part) for part in parts)


def _markdown_table(sheet: Sheet) -> str:
    rules = ["---" if number < sheet.texts else "---:" for number in range(len(sheet.columns))]
    lines = [f"| {' | '.join(cells)} |" for cells in (sheet.columns, rules, *sheet.rows)]
    return "\n".join([f"**{sheet.title}**", "", *lines])


def comparison_parts(comparison: Comparison) -> Iterator[Part]:
    """Everything that `fabula teacher compare` says."""
    sides = (comparison.a, comparison.b)
    yield Sheet(
        f"{comparison.pairs} of {comparison.stories} stories have an ok verdict on both sides",
        ("", "given as", "judged by", "ok", "failed", "refused", "absent"),
        [
            (label, side.name, teacher_line(side.teacher), *map(str, (side.ok, side.failed, side.refused, side.absent)))
            for label, side in zip("AB", sides, strict=True)
        ],
        texts=3,
    )
    drawn = "prompts" if comparison.groups < comparison.pairs else "stories"
    for label, side in zip("AB", sides, strict=True):
        for reason in side.reasons:
            yield f"{label}: stories {reason}"
    yield Sheet(
        f"Agreement, with 95 % intervals (bootstrap over {comparison.groups} {drawn}); A and B: means",
        ("", "weighted kappa", "Spearman", "bias (B - A)", "A", "B"),
        [*map(_agreement_row, comparison.agreement)],
    )
    if comparison.not_shared:
        yield f"Left out, for one side alone judges it: {', '.join(comparison.not_shared)}; and the total with it."
    for row in comparison.agreement:
        if row.confusion is not None:
            levels = [str(level) for level in range(len(row.confusion))]
            yield Sheet(
                f"{row.name}: stories by level, A down, B across",
                ("A \\ B", *levels),
                [(level, *map(str, counts)) for level, counts in zip(levels, row.confusion, strict=True)],
            )
    if comparison.mapping is None:
        yield f"No map: {comparison.no_map}."
    else:
        yield from _map_parts(comparison.mapping)


def _agreement_row(row: Agreement) -> tuple[str, ...]:
    estimates = (row.kappa, row.spearman, row.bias)
    return (row.name, *(estimate_cell(e) for e in estimates), _number(row.mean_a), _number(row.mean_b))


def _map_parts(mapping: MapReport) -> Iterator[Part]:
    def cells(error: ScaleError) -> tuple[str, ...]:
        return f"{error.bias:+.3f}", _number(error.spread), f"{error.distance:.3f}", f"{error.rmse:.3f}"

    yield Sheet(
        f"B's reward on A's scale: a map fitted on {mapping.reward_map.stories} stories",
        ("", "bias", "spread B / A", "distance", "RMSE a story"),
        [("as it is", *cells(mapping.before)), ("mapped, held out", *cells(mapping.after))],
    )
    knots = mapping.reward_map.knots
    yield Sheet("The map's knots", ("B's reward", "A's scale"), [(f"{x:.3f}", f"{y:.3f}") for x, y in knots], texts=0)


def calibration_parts(calibration: Calibration) -> Iterator[Part]:
    """Everything that `fabula teacher calibrate` says."""
    c = calibration
    not_ok = ", ".join(
        f"{count} {name}"
        for name, count in (("failed", c.failed), ("refused", c.refused), ("absent", c.absent))
        if count
    )
    yield (
        f"Judged by {teacher_line(c.teacher)}. Ratings: {c.ratings}, {c.selection}: {c.stories} stories, {c.prompts} "
        f"prompts{'; left out: ' + not_ok if not_ok else ''}."
    )
    yield from (f"Stories {reason}" for reason in c.reasons)
    for human in dict.fromkeys(row.human for row in c.agreement):
        yield Sheet(
            f"Agreement with the mean human rating of {human}, with 95 % intervals",
            ("", "n", "Spearman", "beyond words", "at equal words"),
            [*_human_rows([row for row in c.agreement if row.human == human])],
        )
    yield Sheet(
        "Agreement of people with each other",
        ("human criterion", "n", "raters", "half with half", "reliability", "ceiling"),
        [
            (x.human, str(x.n), f"{x.raters:.3g}", estimate_cell(x.halves), _number(x.reliability), _number(x.ceiling))
            for x in c.ceilings
        ],
    )


def _human_rows(agreement: Sequence[HumanAgreement]) -> Iterator[tuple[str, ...]]:
    yield "word count", str(agreement[0].n), estimate_cell(agreement[0].words), "", ""
    for row in agreement:
        name = f"our {row.judge}" if row.kind == "teacher" else row.judge
        estimates = (row.spearman, row.beyond_words, row.given_words)
        yield name, str(row.n), *(estimate_cell(estimate) for estimate in estimates)


def teacher_line(teacher: TeacherIdentity) -> str:
    """Who judged, in a few words."""
    return f"{teacher.backend} {teacher.model} ({teacher.mode}, revision {teacher.revision}, rubric {teacher.rubric})"


def estimate_cell(estimate: Estimate) -> str:
    """A number with its interval."""
    known = estimate.low is not None and estimate.high is not None
    return _number(estimate.value) + (f" ({_number(estimate.low)}, {_number(estimate.high)})" if known else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"  # + 0.0: no -0.00
