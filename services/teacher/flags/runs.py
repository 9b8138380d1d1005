"""Flags by what comes again: rows of numbers, repeated phrases, runs of one character or word."""

import re
from collections.abc import Iterator
from itertools import groupby, pairwise

from services.teacher.flags.words import Found, Span, Words, merged

ROW = 3  # numbers in a row
ROW_MAX = 10  # the largest number that can be a level of a rubric, or ten out of ten
PHRASE = 6  # words of a phrase that comes again
SHARE = 0.25  # of a text's words in phrases said before
SAID_AGAIN = 18  # words at least in such phrases
SAME_WORD = 8
DOUBLED = 6  # words that follow themselves, where they are more than DOUBLED_SHARE of all
DOUBLED_SHARE = 0.1
_SAME_CHARACTER = re.compile(r"(\S)\1{15,}+")
_MARKS = re.compile(r"[^\w\s]{16,}+")
_BLANK = re.compile(r"\s{12,}+")
_BETWEEN = re.compile(r"[\s,;:/|.-]{1,3}")
_MIXED = re.compile(r"\d{1,2}[ -]\d{1,2}/\d{1,2}")  # one and a half, written 1 1/2


def find(text: str, words: Words) -> Iterator[Found]:
    """Every run that is marked."""
    for start, end in _number_rows(text, words):
        yield "score_tail", start, end
    for start, end in merged([*_said_again(words), *_doubled(words)]):
        yield "repetition", start, end
    runs = [match.span() for pattern in (_SAME_CHARACTER, _MARKS, _BLANK) for match in pattern.finditer(text)]
    for start, end in merged([*runs, *_same_words(words)]):
        yield "padding", start, end


def _number_rows(text: str, words: Words) -> Iterator[Span]:
    """Rows of small numbers, unless they count up or down by one."""
    small = [i for i, w in enumerate(words.lowers) if len(w) <= 2 and w.isdecimal() and int(w) <= ROW_MAX]
    row: list[int] = []
    for i, following in pairwise([*small, -1]):
        row.append(i)
        if following == i + 1 and _BETWEEN.fullmatch(text, words.spans[i][1], words.spans[following][0]):
            continue
        start, end = words.stretch(row[0], row[-1])
        if (
            len(row) >= ROW
            and not _counts([int(words.lowers[k]) for k in row])
            and not _MIXED.fullmatch(text, start, end)
        ):
            yield start, end
        row = []


def _counts(numbers: list[int]) -> bool:
    return {b - a for a, b in pairwise(numbers)} in ({1}, {-1})


def _said_again(words: Words) -> list[Span]:
    """Places of phrases said before, where they make up much of the text."""
    seen: set[tuple[str, ...]] = set()
    again: list[int] = []  # words in such phrases, in order
    for i, phrase in enumerate(words.phrases(PHRASE)):
        if phrase in seen:
            again += range(max(i, again[-1] + 1 if again else 0), i + PHRASE)
        seen.add(phrase)
    if len(again) < max(SAID_AGAIN, SHARE * len(words.lowers)):
        return []
    stretches = (list(group) for _, group in groupby(enumerate(again), key=lambda pair: pair[1] - pair[0]))
    return [words.stretch(stretch[0][1], stretch[-1][1]) for stretch in stretches]


def _doubled(words: Words) -> list[Span]:
    """Words that follow themselves, where there are many."""
    places = [i for i, (a, b) in enumerate(pairwise(words.lowers)) if a == b]
    if len(places) < max(DOUBLED, DOUBLED_SHARE * len(words.lowers)):
        return []
    return [words.stretch(i, i + 1) for i in places]


def _same_words(words: Words) -> Iterator[Span]:
    """Runs of one word."""
    first = 0
    for _, group in groupby(words.lowers):
        last = first + sum(1 for _ in group) - 1
        if last - first + 1 >= SAME_WORD:
            yield words.stretch(first, last)
        first = last + 1
