"""A text as words with their places."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Found = tuple[str, int, int]  # name of a flag, start, end
Span = tuple[int, int]

_WORD = re.compile(r"[^\W_]++(?:['’][^\W_]++)*+")


class Words(NamedTuple):
    """Runs of letters and digits, in order: each in lower case, and its place in the text."""

    lowers: list[str]
    spans: list[Span]

    def stretch(self, first: int, last: int) -> Span:
        """The place from the first word to the last one."""
        return self.spans[first][0], self.spans[last][1]

    def phrases(self, size: int) -> Iterator[tuple[str, ...]]:
        """All runs of `size` words, by their first word."""
        return zip(*(self.lowers[i:] for i in range(size)), strict=False)


def read_words(text: str) -> Words:
    """The words of `text`."""
    found = list(_WORD.finditer(text))
    return Words([m.group().lower().replace("’", "'") for m in found], [m.span() for m in found])


def merged(spans: Sequence[Span]) -> list[Span]:
    """Sorted spans with those that touch or overlap made one."""
    out: list[Span] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out
