"""The reading-time table of the BabyLM 2025 data, `reading/reading_data.csv`."""

from math import isfinite, nan
from pathlib import Path

from services.evaluator.adapters.files import read_table
from services.evaluator.errors import BadDataError
from services.evaluator.suites.reading import NUMBERS, ReadingData, ReadWord

TEXTS = ("item", "word", "prev_item", "prev_word", "sentence")
NO_VALUE = frozenset({"", "NA", "N/A", "NaN", "nan", "None", "NULL", "null"})
_FRESH = "take a fresh copy of the file"


def load_reading(file: Path) -> ReadingData:
    """All words, in the file's order.

    The pipeline reads the table with pandas, to which the text `None` is a missing value: `None` as context is put
    back, and `None` as the context of the word before counts as no word before. So it is here.

    Raises:
        BadDataError: the file cannot be read, lacks columns, is empty or holds a row that cannot be used.
    """
    columns, rows = read_table(file, _FRESH)
    missing = [name for name in (*TEXTS, *NUMBERS) if name not in columns]
    if missing:
        raise BadDataError(str(file), 1, f"no column {', '.join(missing)}", "the columns of reading_data.csv", _FRESH)
    if not rows:
        raise BadDataError(str(file), None, "no row", "one word a row", _FRESH)
    return ReadingData(tuple(_word(str(file), number, row) for number, row in rows), str(file))


def _word(where: str, line: int, row: dict[str, str | None]) -> ReadWord:
    def bad(name: str, expected: str) -> BadDataError:
        return BadDataError(where, line, f"{name} = {row.get(name)!r}", expected, f"mend the row or {_FRESH}")

    def number(name: str) -> float:
        text = row[name]
        if text in NO_VALUE:
            return nan
        try:
            value = float(text or "")
        except ValueError:
            value = nan
        if not isfinite(value):
            raise bad(name, "a number, or nothing")
        return value

    if None in row or None in row.values():
        raise BadDataError(where, line, str(list(row.values()))[:100], f"{len(row)} cells", f"mend the row or {_FRESH}")
    texts = {name: row[name] or "" for name in TEXTS}
    if texts["word"] in NO_VALUE:
        raise bad("word", "a word")
    has_previous = texts["prev_item"] not in NO_VALUE
    if has_previous and texts["prev_word"] in NO_VALUE:
        raise bad("prev_word", "a word, since prev_item has a text")
    return ReadWord(
        item="None" if texts["item"] in NO_VALUE else texts["item"],
        word=texts["word"],
        prev_item=texts["prev_item"] if has_previous else None,
        prev_word=texts["prev_word"],
        sentence=texts["sentence"],
        numbers={name: number(name) for name in NUMBERS},
    )
