"""The closing table: what a run gained, what it cost, and stories from its first and last update."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fabula_proto import Measure, SuiteResult
from services.local.summary import Difference, ShownStory, Summary, criterion_keys, measure, suite

QUALITY = "storytelling"
# Suite -> its title, the factor from its unit to what is shown, and the digits shown.
SUITES = {
    QUALITY: ("story score", 1.0, 2),
    "blimp": ("minimal pairs %", 100.0, 1),
    "blimp_supplement": ("  supplement %", 100.0, 1),
    "entity_tracking": ("entity tracking %", 100.0, 1),
    "ewok": ("EWoK %", 100.0, 1),
    "comps": ("COMPS %", 100.0, 1),
    "wug_adj": ("wug adjectives rho", 1.0, 2),
    "wug_past": ("wug past tense rho", 1.0, 2),
    "reading": ("reading, partial R2 %", 1.0, 2),
    "aoa": ("AoA words, nats", 1.0, 2),
    "glue": ("GLUE %", 100.0, 1),
}


ALWAYS_SHOWN = (QUALITY, "blimp", "entity_tracking")  # these need no data


def suite_titles(suite: str) -> tuple[str, float, int]:
    """Title, factor and digits of a suite; one that we do not know is shown as it comes."""
    return SUITES.get(suite, (suite, 1.0, 3))


def show(summary: Summary, console: Console) -> None:
    """Print the closing table of a run. Fits 80 columns; stories are wrapped to the console's width."""
    console.print(Group(*_parts(summary)))


def _parts(summary: Summary) -> Iterator[RenderableType]:
    yield Text("")
    yield _scores(summary)
    yield Text(verdict(summary), style="bold")
    yield from _notes(summary)
    yield Text("")
    yield _cost(summary)
    yield from _stories(summary)
    yield Text("")


def plain_table(title: str | None, *columns: str) -> Table:
    """A table with a rule under its head; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.show_edge, table.pad_edge, table.padding = False, False, (0, 1, 0, 0)
    table.show_header = any(columns)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _scores(summary: Summary) -> Table:
    table = plain_table(f"What {summary.run} gained", "", "before", "after", "change")
    for name, (title, scale, digits) in SUITES.items():
        pair = suite(summary.before, name), suite(summary.after, name)
        if pair == (None, None) and name not in ALWAYS_SHOWN:
            continue
        _add_row(table, title, pair, None, scale, digits)
        for key, criterion in (criterion_keys(pair[0]) or criterion_keys(pair[1])).items():
            _add_row(table, f"  {criterion}", pair, key, scale, digits)
    return table


def _add_row(
    table: Table,
    title: str,
    pair: tuple[SuiteResult | None, SuiteResult | None],
    key: str | None,
    scale: float,
    digits: int,
) -> None:
    before, after = measure(pair[0], key), measure(pair[1], key)
    change = ""
    if before is not None and after is not None:
        change = interval(Difference.of(before, after), scale, digits, "+")
    cells = [
        interval(value, scale, digits) if value is not None else _absence(result)
        for value, result in ((before, pair[0]), (after, pair[1]))
    ]
    table.add_row(title, *cells, change)


def _absence(result: SuiteResult | None) -> str:
    return result.status if result is not None and result.status != "ok" else "not measured"


def interval(measured: Measure | Difference, scale: float, digits: int, sign: str = "") -> str:
    """`2.00 [1.80, 2.20]`."""
    value, low, high = (
        f"{number * scale:{sign}.{digits}f}" for number in (measured.value, measured.low, measured.high)
    )
    return f"{value} [{low}, {high}]"


def verdict(summary: Summary) -> str:
    """One sentence: did the story score move beyond what chance would do?"""
    before = measure(suite(summary.before, "storytelling"))
    after = measure(suite(summary.after, "storytelling"))
    if before is None or after is None:
        return "No statement on the story score: it was not measured both before and after interaction."
    gain = Difference.of(before, after)
    shown = f"{gain.value:+.2f} points, 95 % interval {gain.low:+.2f} to {gain.high:+.2f}"
    if not gain.beyond_chance:
        return f"The story score changed by {shown}: within the interval of no change. No gain is shown."
    if gain.value > 0:
        return f"The story score rose by {shown}: beyond chance."
    return f"The story score FELL by {shown}: beyond chance."


def _notes(summary: Summary) -> Iterator[Text]:
    yield Text("In brackets: 95 % bootstrap interval; a change's is made from both.", "dim")
    for name, (title, _, _) in SUITES.items():
        results = suite(summary.before, name), suite(summary.after, name)
        known = next((r for r in reversed(results) if r is not None and r.status == "ok"), None)
        if known is not None and (headline := measure(known)) is not None:
            yield Text(f"{title.strip(' %')}: {headline.n:,} {_items(known)}", "dim")
        reasons: dict[str, list[str]] = {}
        for report, result in zip((summary.before, summary.after), results, strict=True):
            if report is not None and result is not None and result.status != "ok":
                reasons.setdefault(f"{result.status}: {result.reason}", []).append(report.checkpoint)
        for reason, checkpoints in reasons.items():
            yield Text(f"{title.strip(' %')} of {' and '.join(checkpoints)} {reason}", "yellow")


def _items(result: SuiteResult) -> str:
    if (teacher := result.teacher) is not None:
        return (
            f"stories, judged by {teacher.backend} ({teacher.model}), rubric {teacher.rubric} {teacher.rubric_version}"
        )
    return f"items, {result.source}"


def _cost(summary: Summary) -> Table:
    words = plain_table("Words", "", "")
    report = summary.after or summary.before
    seen = report.pretraining_words if report is not None else summary.pretraining_words
    if seen is not None:
        words.add_row("pretraining, seen", f"{seen:,}")
    if (last := summary.last) is not None:
        words.add_row("interaction, paid", f"{last.words_spent:,}", style="bold")
        words.add_row("  prompt, once", f"{last.words_prompt:,}", style="dim")
        words.add_row("  teacher's verdicts", f"{last.words_teacher:,}", style="dim")
        if last.words_corpus:
            words.add_row("  corpus, in between", f"{last.words_corpus:,}", style="dim")
        words.add_row("student's own, free", f"{last.words_student:,}")
    time = plain_table("Time", "", "")
    for phase in summary.phases:
        name = f"  {phase.name}" if phase.part else phase.name
        time.add_row(name, duration(phase.seconds), style="dim" if phase.part else "")
    both = Table.grid(padding=(0, 6))
    both.add_row(words, time)
    return both


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _stories(summary: Summary) -> Iterator[RenderableType]:
    if summary.first is None or summary.last is None:
        return
    yield Text("")
    yield Text("Stories", style="bold")
    yield Text("The first three of their update; nobody picked them. Each goes on from:", style="dim")
    yield Text(summary.prompt, style="dim italic")
    yield from _group(f"First update ({summary.first.step})", summary.first.score_mean, summary.first_stories)
    if summary.last.step != summary.first.step:
        yield from _group(f"Last update ({summary.last.step})", summary.last.score_mean, summary.last_stories)


def _group(title: str, mean: float, stories: Sequence[ShownStory]) -> Iterator[RenderableType]:
    yield Text(f"\n{title}: mean score {mean:.2f}", style="bold")
    for story in stories:
        score = f"{story.total:.2f}" if story.total is not None else "no verdict"
        flags = f"  ({', '.join(story.flags)})" if story.flags else ""
        yield Text(f"  score {score}{flags}", style="cyan")
        yield Padding(Text(" ".join(story.text.split()) or "(nothing)"), (0, 2, 0, 4))
