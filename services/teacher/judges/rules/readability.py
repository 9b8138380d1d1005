"""Readability: is it English in sentences? Fluency of word classes, sentence shape, known words, typical errors."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from services.teacher.judges.rules.grammar import FINITE_LABELS, slips
from services.teacher.judges.rules.lexicon import Word
from services.teacher.judges.rules.pairs import COMMON_ZIPF, is_familiar
from services.teacher.judges.rules.text import Document

LIST_RUN = 3  # words in a row of the same open class, or names: the third and later ones are a list, not prose
WINDOW = 3  # tokens over which a break in fluency is looked for
BREAK = -0.35  # mean association (nats) below which a window counts as broken
LONGEST, SHORTEST = 38, 3  # words of a sentence that a child can follow (plain-language guides: 15-20 on average)

_OPEN_RUN = frozenset({"NN", "NNS", "JJ", "VB", "VBG", "VBD", "VBN", "VBZ", "RB", "NAME"})


class Readability(NamedTuple):
    """Shares are 0..1; errors are counts a hundred words."""

    known_words: float  # share of lower-case words that the list knows, or that are formed from one it knows
    association: float  # mean nats a token by which neighbours fit (SLOR over word classes)
    familiar: float  # share of pairs of common words that English often puts side by side, smoothed towards 0.75
    broken: float  # share of windows of WINDOW tokens that fit worse than BREAK
    sentence_fit: float  # share of words in sentences of SHORTEST..LONGEST words, smoothly
    finite: float  # share of sentences with a finite verb
    listed: float  # share of words that stand in bare lists
    capitals: float  # share of words inside sentences that start with a capital
    grammar_slips: float
    case_errors: float
    mark_errors: float


def readability(document: Document, sentences: Sequence[Sequence[Word]], doubled: int) -> Readability:
    """Measure a tagged story of at least one word."""
    lower = unknown = inner = capital = listed = finite = windows = broken = tokens = pairs = familiar = 0
    association = fit = 0.0
    agreement, case, marks = (
        float(doubled),
        0.0,
        2.0 * document.unbalanced_quotes + document.odd_marks + document.odd_quotes,
    )
    for number, sentence in enumerate(sentences):
        words = [w for w in sentence if w.token.kind == "word"]
        for w in words:
            surface = w.token.surface
            if surface[0].isupper():
                if not w.token.first:
                    inner, capital = inner + 1, capital + (surface != "I")
            else:
                lower, unknown = lower + 1, unknown + (not w.known)
                inner += not w.token.first
                case += (w.token.lower == "i") + (
                    w.token.first and number > 0 and not w.token.quoted and surface.islower()
                )
        scores = [max(-3.0, min(3.0, w.association)) for w in sentence]
        association, tokens = association + sum(scores), tokens + len(scores)
        for i in range(len(scores) - WINDOW + 1):
            windows += 1
            broken += sum(scores[i : i + WINDOW]) < BREAK * WINDOW
        fit += len(words) * _length_fit(len(words), short_is_fine=any(w.token.quoted for w in words))
        finite += any(w.label in FINITE_LABELS for w in words) or (0 < len(words) <= 4 and words[0].token.quoted)
        listed += _listed(sentence)
        mine, seen = _pairs(sentence)
        pairs, familiar = pairs + mine, familiar + seen
        agreement += slips(sentence)
        marks += _mark_errors(sentence)
    per_hundred = 100.0 / max(20, document.words)
    count = max(1, document.words)
    return Readability(
        known_words=1.0 - unknown / max(1, lower),
        association=association / max(1, tokens),
        familiar=(familiar + 3.0) / (pairs + 4.0),
        broken=broken / max(1, windows),
        sentence_fit=fit / count,
        finite=finite / max(1, len(sentences)),
        listed=listed / count,
        capitals=capital / max(1, inner),
        grammar_slips=agreement * per_hundred,
        case_errors=case * per_hundred,
        mark_errors=marks * per_hundred,
    )


def _length_fit(words: int, *, short_is_fine: bool) -> float:
    if words > LONGEST:
        return (LONGEST / words) ** 2
    if words < SHORTEST and not short_is_fine:
        return 0.4
    return 1.0


def _pairs(sentence: Sequence[Word]) -> tuple[int, int]:
    """Neighbouring common words with no mark between them, and how many of these pairs are familiar."""
    pairs = seen = 0
    for a, b in pairwise(sentence):
        if a.zipf >= COMMON_ZIPF <= b.zipf and a.token.kind == "word" == b.token.kind:
            pairs += 1
            seen += is_familiar(a.token.lower, b.token.lower)
    return pairs, seen


def _listed(sentence: Sequence[Word]) -> int:
    """Words in runs of one open class with nothing but commas between: `fox, owl, bear, wolf`."""
    run = total = 0
    previous = ""
    for w in sentence:
        if w.label in {",", ";"}:
            continue
        run = (
            run + 1
            if w.label in _OPEN_RUN and (w.label == previous or {w.label, previous} <= {"NN", "NNS", "NAME"})
            else 1
        )
        total += run > LIST_RUN
        previous = w.label
    return total


def _mark_errors(sentence: Sequence[Word]) -> int:
    """Marks beside marks (", ."), a sentence that starts with a mark, endless exclamation."""
    errors = int(sentence[0].token.kind in ("pause", "end")) if sentence else 0
    for a, b in pairwise(sentence):
        errors += (
            a.token.kind in ("pause", "end") and b.token.kind in ("pause", "end") and a.token.quoted == b.token.quoted
        )
    return errors + sum(w.token.kind == "end" and len(w.token.surface) > 3 for w in sentence)
