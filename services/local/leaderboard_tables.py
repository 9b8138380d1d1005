"""The leaderboard in a terminal: as many columns side by side as fit, the rest below."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from fabula_proto import Measure
from services.local.leaderboard import Cell, Delta, Leaderboard, Row
from services.local.table import SUITES, interval, plain_table, suite_titles

SIGNIFICANT = 0.05
_GAP = 2  # a column of space and one for the rule below the head


def show(board: Leaderboard, console: Console) -> None:
    """Print suites as columns; with `board.suite`, its paradigms as lines and checkpoints as columns."""
    several = len({row.run for row in board.rows}) > 1
    labels = [f"{row.run}/{row.evaluation}" if several else row.evaluation for row in board.rows]
    if board.suite is None:
        columns = {suite: [_cell(row, suite, suite) for row in board.rows] for suite in board.columns}
        _print("checkpoint", labels, {_title(suite): cells for suite, cells in columns.items()}, console)
    else:
        cells = {
            label: [_cell(row, board.suite, name) for name in board.columns]
            for label, row in zip(labels, board.rows, strict=True)
        }
        _print(_title(board.suite), list(board.columns), cells, console)
    for note in _notes(board):
        console.print(Text(note, "dim"))
    for row in board.rows:
        if row.reward_up_grammar_down:
            console.print(Text(f"! {row.run}: {row.evaluation}: {traded(row)}", "bold red"))
    for problem in board.problems:
        console.print(Text(f"! {problem}", "yellow"))


def traded(row: Row) -> str:
    """What rose and what fell."""
    changed = [
        f"{_title(suite)} {_change(cell.delta, *_scale(suite, cell.unit))}"
        for suite, cell in row.cells.items()
        if cell.delta is not None and (suite == "storytelling" or (suite.startswith("blimp") and cell.delta.high < 0))
    ]
    return f"reward up, grammar down: {'; '.join(changed)}"


def _print(head: str, labels: Sequence[str], columns: dict[str, list[str]], console: Console) -> None:
    """Blocks of columns that fit the console, each with the labels at its left; lines of one row stay together."""
    left = max(len(text) for text in (head, *labels))
    widths = {
        name: max(len(line) for cell in (name, *cells) for line in cell.split("\n")) for name, cells in columns.items()
    }
    block: list[str] = []
    for name in [*columns, None]:
        used = left + sum(_GAP + widths[other] for other in block)
        if block and (name is None or used + _GAP + widths[name] > console.width):
            table = plain_table(None, head, *block)
            for number, label in enumerate(labels):
                table.add_row(label, *(columns[other][number] for other in block))
            console.print(table, "")
            block = []
        if name is not None:
            block.append(name)


def _title(suite: str) -> str:
    return suite_titles(suite)[0].strip() if suite in SUITES else suite


def _scale(suite: str, unit: str | None) -> tuple[float, int]:
    """Accuracies in per cent, whether or not the suite has a title of its own."""
    if suite not in SUITES and unit == "accuracy":
        return 100.0, 1
    _, scale, digits = suite_titles(suite)
    return scale, digits


def _cell(row: Row, suite: str, column: str) -> str:
    cell = row.cells.get(column, Cell(status="not measured"))
    if cell.measure is None:
        return "-" if cell.status == "not measured" else cell.status
    scale, digits = _scale(suite, cell.unit)
    if row.is_base or row.base is None:
        return interval(cell.measure, scale, digits)
    change = _change(cell.delta, scale, digits)
    return f"{interval(cell.measure, scale, digits)}\n{change}"


def _change(delta: Delta | None, scale: float, digits: int) -> str:
    """`+1.2 [+0.8, +1.6] p .004`; the corrected p where there is one."""
    if delta is None:
        return "not compared"
    shown = interval(Measure(value=delta.value, low=delta.low, high=delta.high, n=1), scale, digits, "+")
    p = delta.p if delta.p_holm is None else delta.p_holm
    return shown if p is None else f"{shown} p {_p(p)}"


def _p(p: float) -> str:
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _notes(board: Leaderboard) -> Iterator[str]:
    yield "In brackets: 95 % bootstrap interval. Second line: change from the base, over the same items."
    for run, base in dict.fromkeys((row.run, row.base) for row in board.rows if row.base):
        yield f"Base of {run}: {base}"
    if any(cell.delta is not None and cell.delta.p is not None for row in board.rows for cell in row.cells.values()):
        corrected = "after Holm's correction over the paradigms" if board.suite else "for one suite of one checkpoint"
        yield f"p: McNemar's exact test over all items, two-sided, {corrected}."
    if board.suite is not None:
        yield from _counts(board)
    reasons: dict[str, list[str]] = {}
    for row in board.rows:
        for name, cell in row.cells.items():
            if cell.not_compared:
                where = row.evaluation if board.suite else f"{row.evaluation} {name}"
                reasons.setdefault(f"not compared: {cell.not_compared}", []).append(where)
            if cell.status in ("failed", "skipped"):
                reasons.setdefault(f"{cell.status}: {cell.reason}", []).append(f"{row.evaluation} {name}")
    for reason, places in reasons.items():
        yield f"{', '.join(dict.fromkeys(places))}: {reason}"


def _counts(board: Leaderboard) -> Iterator[str]:
    for row in board.rows:
        tested = [cell.delta for cell in row.cells.values() if cell.delta is not None and cell.delta.p_holm is not None]
        sure = [delta.value for delta in tested if (delta.p_holm or 0.0) < SIGNIFICANT]
        if tested:
            rose, fell = sum(value > 0 for value in sure), sum(value < 0 for value in sure)
            yield (
                f"{row.evaluation}: of {len(tested)} paradigms {rose} rose and {fell} fell beyond chance "
                f"(corrected p < {SIGNIFICANT})"
            )
