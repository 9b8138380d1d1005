"""Tables of reading times in the layout of reading_data.csv."""

import csv
import math
from pathlib import Path

from services.evaluator.suites import reading

COLUMNS = ("", "item", "word", "sentence", "prev_word", "prev_item", *reading.NUMBERS)
SENTENCES = (
    "The old fox is in the garden, unfortunately.",
    "None of the naïve kings - or foxes! - has the golden boxes.",
    "The garden is warm.",
)


def rows(sentences: int = 3, words: int = 12) -> list[dict[str, str]]:
    """A table of reading times that follow sines, so that every regression has a solution."""
    table: list[dict[str, str]] = []
    for s in range(sentences):
        parts = SENTENCES[s % len(SENTENCES)].split()[:words]
        for i in range(1, len(parts)):
            wave = {name: str(math.sin((7 * s + i) * (k + 1.3)) + 2) for k, name in enumerate(reading.NUMBERS)}
            texts = {"item": " ".join(parts[:i]), "word": parts[i], "sentence": f"{s}"}
            before = {"prev_item": " ".join(parts[: i - 1]), "prev_word": parts[i - 1] if i > 1 else ""}
            table.append({"": str(len(table)), **texts, **before, **wave})
    return table


def write(path: Path, table: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    return path
