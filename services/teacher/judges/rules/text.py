"""A story as sentences of tokens. One pass over the text, linear in its length, for any Unicode."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_TYPOGRAPHY = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "…": "..."})
# Corpora that were tokenised for machine translation write "did n't", "it 's" and ``quotes''.
_SPLIT_CLITIC = re.compile(r"(?<=[a-z]) {1,3}(?=(?:n't|'(?:s|d|ll|re|ve|m|t))\b)", re.IGNORECASE)
_TOKEN = re.compile(
    r"(?P<word>[^\W\d_]{1,40}(?:['\-][^\W\d_]{1,40}){0,4})"
    r"|(?P<number>\d+(?:[.,:]\d+)*(?:st|nd|rd|th)?)"
    r"|(?P<end>[.!?]+)"
    r"|(?P<quote>\")"
    r"|(?P<pause>[,;:]|-{1,3}|[–—])"
    r"|(?P<newline>\n\s*)"
    r"|(?P<other>[^\w\s]|_)"
)
_ABBREVIATIONS = frozenset({"mr", "mrs", "ms", "dr", "st", "jr", "sr", "prof"})
_CLITIC = re.compile(r"(n't|'(?:s|d|ll|re|ve|m))$")


class Token(NamedTuple):
    """A word, a number or a mark."""

    surface: str
    lower: str
    kind: str  # word | number | end | pause | other
    quoted: bool
    first: bool  # the first word of its sentence, or of a quotation in it


@dataclass(slots=True)
class Sentence:
    """Tokens up to and with the closing mark. Quotation marks are not tokens: `Token.quoted` says it."""

    tokens: list[Token] = field(default_factory=list)
    closed: bool = False

    @property
    def words(self) -> list[str]:
        """The lower-case words, clitics apart (`did`, `n't`)."""
        return [t.lower for t in self.tokens if t.kind == "word"]


@dataclass(frozen=True, slots=True)
class Document:
    """A story taken apart."""

    sentences: tuple[Sentence, ...]
    quote_marks: int
    unbalanced_quotes: int  # quotations that a paragraph or the story leaves open
    odd_marks: int  # symbols that prose has no use for
    odd_quotes: int  # quotations of fewer than three words without a mark of their own
    words: int


def normalise(text: str) -> str:
    """Plain quotation marks and joined clitics."""
    return _SPLIT_CLITIC.sub("", text.translate(_TYPOGRAPHY).replace("``", '"').replace("''", '"'))


def read(text: str) -> Document:
    """Split `text` into sentences of tokens.

    A full stop, exclamation or question mark closes a sentence, except after an abbreviation, after an ellipsis that
    goes on in lower case, and at the end of a quotation that goes on in lower case ("Stop!" he said.).
    """
    builder = _Builder()
    for match in _TOKEN.finditer(normalise(text)):
        builder.add(match.lastgroup or "other", match.group())
    return builder.document()


class _Builder:
    def __init__(self) -> None:
        self.sentences: list[Sentence] = []
        self.current = Sentence()
        self.quoted = False
        self.first = True
        self.pending = ""  # closing mark that waits to see what follows
        self.quote_after_pending = False
        self.quote_marks = self.unbalanced = self.odd = self.words = self.odd_quotes = self.opened = 0

    def add(self, kind: str, surface: str) -> None:
        if kind == "quote":
            self.quote_marks += 1
            if self.pending and self.quoted:
                self.quote_after_pending = True
            elif self.pending:
                self.close()
            if self.quoted:
                before = self.current.tokens[-1] if self.current.tokens else None
                bare = before is None or before.kind not in ("end", "pause")
                self.odd_quotes += bare and self.words - self.opened < 3
            self.opened = self.words
            self.quoted = not self.quoted
            self.first = self.first or self.quoted
            return
        if kind == "newline":
            if self.quoted:
                self.unbalanced += 1
                self.quoted = False
            if self.pending:
                self.close()
            return
        if self.pending and kind != "end":
            goes_on = surface[0].islower() and (
                self.quote_after_pending or (len(self.pending) > 1 and "." in self.pending)
            )
            if goes_on or (kind == "pause" and self.quote_after_pending):
                self.pending, self.quote_after_pending = "", False
            else:
                self.close()
        if kind == "end":
            last = self.current.tokens[-1].lower if self.current.tokens else ""
            if last in _ABBREVIATIONS and surface == ".":
                return
            if self.pending:
                self.pending += surface
            elif self.current.tokens:
                self.pending = surface
            self.current.tokens.append(Token(surface, surface[0], "end", self.quoted, False))
            return
        if kind == "other":
            self.odd += surface not in "'()*"
            return
        if kind == "word":
            self.words += 1
            for part in _clitics(surface):
                self.current.tokens.append(Token(part, part.lower(), "word", self.quoted, self.first))
                self.first = False
            return
        self.current.tokens.append(Token(surface, surface if kind == "pause" else "0", kind, self.quoted, False))
        self.first = False if kind == "number" else self.first

    def close(self, *, closed: bool = True) -> None:
        if any(t.kind in ("word", "number") for t in self.current.tokens):
            self.current.closed = closed
            self.sentences.append(self.current)
        self.current = Sentence()
        self.first = True
        self.pending, self.quote_after_pending = "", False

    def document(self) -> Document:
        if self.quoted:
            self.unbalanced += 1
        self.close(closed=bool(self.pending))
        return Document(tuple(self.sentences), self.quote_marks, self.unbalanced, self.odd, self.odd_quotes, self.words)


def _clitics(word: str) -> Iterator[str]:
    match = _CLITIC.search(word.lower()) if "'" in word else None
    if match and match.start() > 0:
        yield word[: match.start()]
        yield word[match.start() :]
    else:
        yield word
