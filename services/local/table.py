"""The closing table: what a run gained, what it cost, and stories from its first and last update."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fabula_proto import Measure, SuiteResult
from services.local.summary import CRITERION, Difference, ShownStory, Summary, criteria, measure, suite

SUITES = (
    ("blimp", "minimal pairs"),
    ("blimp_supplement", "minimal pairs, supplement"),
    ("entity_tracking", "entity tracking"),
)


def show(summary: Summary, console: Console) -> None:
    """Print the closing table of a run."""
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


def _scores(summary: Summary) -> Table:
    table = Table(title=f"What {summary.run} gained", title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    table.add_column("")
    for heading in ("before interaction", "after interaction", "difference"):
        table.add_column(heading, justify="right")
    table.add_column("items", justify="right")
    table.add_column("from")
    quality = suite(summary.before, "story_quality"), suite(summary.after, "story_quality")
    names = criteria(quality[0] if quality[0] and quality[0].measures else quality[1])
    _add_suite(table, "story score", quality, None, 1.0, "{:.2f}")
    for name in names:
        _add_suite(table, f"  {name}", quality, CRITERION + name, 1.0, "{:.2f}")
    for name, title in SUITES:
        pair = suite(summary.before, name), suite(summary.after, name)
        _add_suite(table, f"{title} %", pair, None, 100.0, "{:.1f}")
    return table


def _add_suite(
    table: Table,
    title: str,
    pair: tuple[SuiteResult | None, SuiteResult | None],
    key: str | None,
    scale: float,
    form: str,
) -> None:
    before, after = measure(pair[0], key), measure(pair[1], key)
    known = after or before
    result = pair[1] or pair[0]
    difference = ""
    if before is not None and after is not None:
        gain = Difference.of(before, after)
        sign = form.replace("{:", "{:+")
        difference = _interval(gain.value, gain.low, gain.high, scale, sign, sign)
    source = "" if key is not None or result is None else _source(result)
    table.add_row(
        title,
        _shown(before, pair[0], scale, form),
        _shown(after, pair[1], scale, form),
        difference,
        str(known.n) if known is not None else "",
        source,
    )


def _shown(value: Measure | None, result: SuiteResult | None, scale: float, form: str) -> str:
    if value is not None:
        return _interval(value.value, value.low, value.high, scale, form, form)
    return result.status if result is not None and result.status != "ok" else "not measured"


def _interval(value: float, low: float, high: float, scale: float, form: str, bounds: str) -> str:
    shown = form.format(value * scale), bounds.format(low * scale), bounds.format(high * scale)
    return "{} [{}, {}]".format(*shown)


def _source(result: SuiteResult) -> str:
    if result.teacher is not None:
        return f"{result.teacher.backend} teacher, rubric {result.teacher.rubric} {result.teacher.rubric_version}"
    return result.source


def verdict(summary: Summary) -> str:
    """One sentence: did the story score move beyond what chance would do?"""
    before = measure(suite(summary.before, "story_quality"))
    after = measure(suite(summary.after, "story_quality"))
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
    yield Text("Brackets: 95 % bootstrap interval; of differences, from both intervals taken as independent.", "dim")
    for report in (summary.before, summary.after):
        for result in report.suites if report is not None else ():
            if result.status != "ok" and report is not None:
                yield Text(f"{result.suite} of {report.checkpoint} {result.status}: {result.reason}", "yellow")


def _cost(summary: Summary) -> Table:
    words = Table(title="Words", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    words.add_column("paid by")
    words.add_column("words", justify="right")
    report = summary.after or summary.before
    if report is not None:
        words.add_row("pretraining (words seen)", f"{report.pretraining_words:,}")
    if (last := summary.last) is not None:
        words.add_row("prompt, charged once", f"{last.words_prompt:,}")
        words.add_row("teacher's verdicts", f"{last.words_teacher:,}")
        words.add_row("budget spent on interaction", f"{last.words_spent:,}", style="bold")
        words.add_row("student's own (not charged)", f"{last.words_student:,}")
        words.add_row("updates", f"{summary.updates:,}")
    time = Table(title="Time", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    time.add_column("phase")
    time.add_column("", justify="right")
    time.add_column("")
    for phase in summary.phases:
        name = f"  {phase.name}" if phase.part else phase.name
        time.add_row(name, duration(phase.seconds), phase.note, style="dim" if phase.part else "")
    both = Table.grid(padding=(0, 4))
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
    yield Text(
        "The first ones of their update, in the order they were written: nobody picked them. "
        f"Each goes on from: {summary.prompt}",
        style="dim",
    )
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
