"""Typical slips between neighbouring words, by rule. A rule would rather miss a slip than invent one.

The kinds are those that learners' corpora count most often (Nicholls 2003: agreement, articles, verb forms).
"""

from collections.abc import Sequence
from itertools import pairwise

from services.teacher.judges.rules.lexicon import Word

_PAST = ("was", "were", "had", "did", "said", "asked", "went", "came", "got", "saw", "knew", "made", "took", "thought")
_BASE = ("go", "come", "get", "see", "know", "make", "take", "think", "want", "let", "say", "do", "have")
PAST_LABELS = frozenset({"VBD", "wanted", *_PAST})
PRESENT_LABELS = frozenset({"VBZ", "is", "are", "am", "has", "does", "says", "'s", "'re", "'m", "'ve", *_BASE})
MODAL_LABELS = frozenset(
    {"will", "would", "can", "could", "shall", "should", "may", "might", "must", "cannot", "'ll", "'d"}
)
FINITE_LABELS = PAST_LABELS | PRESENT_LABELS | MODAL_LABELS

_VOWEL_SOUND = ("hour", "honest", "honour", "honor", "heir")
_CONSONANT_SOUND = ("one", "once", "uni", "use", "usu", "eu", "ewe", "ukul", "ura", "ute", "uto")
_SINGULAR = frozenset({"he", "she", "it"})
_NOT_AFTER_SINGULAR = frozenset({"were", "are", "am", "'m", "'re", "'ve", "VB", *_BASE}) - {"let"}
_BEFORE_SUBJECT = frozenset({"", "that", "and", "but", "so", "then", "when", "because", ","})
_NO_VERB = frozenset({"NN", "NNS", "the", "a", "an", "of", "and", "with", "in", "his", "my"})
_WANT_MORE = frozenset(
    {"the", "a", "an", "and", "but", "or", "of", "my", "your", "their", "its", "every", "into", "than", "because", "as"}
)
_PLURAL = frozenset({"we", "they", "you"})
_NOT_AFTER_PLURAL = frozenset({"was", "is", "has", "does", "am", "VBZ", "'m"})
_NOT_AFTER_I = frozenset({"is", "are", "has", "does", "VBZ", "'s", "'re"})
_SUBJECT_ONLY = frozenset({"he", "she", "they", "we", "i"})
_ARTICLES = frozenset({"a", "an", "the", "my", "your", "his", "its", "our", "their", "every"})
_NOT_AFTER_ARTICLE = frozenset(
    {"the", "a", "an", "and", "but", "was", "were", "is", "he", "she", "they", "it", "him", "VBZ"}
)
_BARE_INFINITIVE = frozenset({"to", "did", "could", "would", "should", "can", "must", "will"})
_DO = frozenset({"did", "does", "do", "could", "would", "should", "ca", "wo"})
_NOT_BARE = frozenset({"VBD", "VBZ", *_PAST})
_BEFORE_BASE_FORM = frozenset(
    {
        "let",
        "made",
        "make",
        "makes",
        "did",
        "does",
        "saw",
        "see",
        "if",
        "that",
        "help",
        "heard",
        "watched",
        "than",
        "as",
    }
    | MODAL_LABELS
)
_PREPOSITIONS = frozenset({"of", "at", "with", "from", "into", "under", "upon"})
_CLAUSE_START = frozenset({"^", ",", ";", "but", "when", "because", "then", "so", "until", "while"})
_SINGULAR_DETERMINERS = frozenset({"a", "an", "the", "this", "every", "his", "her", "my", "their", "its"})
_PLURAL_VERBS = frozenset({"were", "are", "have", "do", "VB", *_BASE}) - {"let"}
_SINGULAR_VERBS = frozenset({"was", "is", "has", "does", "VBZ"})
_BEFORE_BARE_NOUN = _PREPOSITIONS | frozenset(
    {
        "in",
        "on",
        "to",
        "was",
        "were",
        "is",
        "had",
        "saw",
        "took",
        "got",
        "made",
        "^",
        "and",
        "but",
        "near",
        "behind",
        "by",
    }
)


def slips(sentence: Sequence[Word]) -> float:
    """Number of slips in one tagged sentence: he were, they was, a apple, to went, with he, the a, in castle."""
    errors = 0.0
    before = ""
    for a, b in pairwise(sentence):
        x, y, label = a.token.lower, b.token.lower, b.label
        if x in _ARTICLES:
            errors += label in _NOT_AFTER_ARTICLE or _wrong_article(x, y, label)
        elif x in _SINGULAR:
            errors += label in _NOT_AFTER_SINGULAR and before not in _BEFORE_BASE_FORM
            errors += label in _NO_VERB and before in _BEFORE_SUBJECT and x != "it"
        elif x in _PLURAL:
            errors += label in _NOT_AFTER_PLURAL
        elif x == "i":
            errors += label in _NOT_AFTER_I
        elif x in _BARE_INFINITIVE:
            errors += label in _NOT_BARE
        elif x == "n't":
            errors += label in _NOT_BARE and before in _DO
        elif x in _PREPOSITIONS:
            errors += y in _SUBJECT_ONLY or (
                label in FINITE_LABELS and label not in {"VBD", "let", "do", "'s", "want", "might", "will", "can"}
            )
        if b.countable and label == "NN" and a.label in _BEFORE_BARE_NOUN and not b.token.quoted:
            errors += 0.7
        before = x
    return errors + _noun_agreement(sentence) + _breaks_off(sentence) + _wrong_reflexive(sentence)


def _wrong_reflexive(sentence: Sequence[Word]) -> int:
    """`he dressed herself`: a reflexive that is not the one of the latest subject pronoun."""
    subject, errors = "", 0
    for w in sentence:
        lower = w.token.lower
        if lower in _REFLEXIVES:
            subject = lower
        elif w.label in ("NN", "NNS", "NAME"):
            subject = ""  # the reflexive may mean the noun
        elif subject and lower in _REFLEXIVES.values():
            errors += lower != _REFLEXIVES[subject]
    return errors


_REFLEXIVES = {"he": "himself", "she": "herself", "it": "itself", "they": "themselves", "i": "myself"}


def _breaks_off(sentence: Sequence[Word]) -> bool:
    """A closed sentence whose last word wants another one: `at last the old mill with the.`"""
    closed = len(sentence) > 1 and sentence[-1].label == "."
    return closed and (sentence[-2].label in _WANT_MORE or sentence[-2].label == ",")


def _wrong_article(x: str, y: str, label: str) -> bool:
    if x == "a":
        return (y[0] in "aeiou" and not y.startswith(_CONSONANT_SOUND)) or label == "NNS"
    return x == "an" and y[0].isalpha() and y[0] not in "aeiou" and not y.startswith(_VOWEL_SOUND)


def _noun_agreement(sentence: Sequence[Word]) -> float:
    """`the fox were`, `the foxes was`, where the noun phrase starts a clause and has a single noun."""
    errors = 0.0
    before = "^"
    i = 0
    while i < len(sentence) - 2:
        word = sentence[i]
        if before in _CLAUSE_START and word.token.lower in _SINGULAR_DETERMINERS:
            at = i + 1
            while at < len(sentence) - 2 and sentence[at].label == "JJ":
                at += 1
            noun, verb = sentence[at].label, sentence[at + 1].label if at + 1 < len(sentence) else ""
            if noun == "NN":
                errors += verb in _PLURAL_VERBS and sentence[at].token.lower not in _COLLECTIVE
            elif noun == "NNS":
                errors += verb in _SINGULAR_VERBS
            before, i = noun, at + 1
            continue
        before, i = word.label, i + 1
    return errors


_COLLECTIVE = frozenset(
    {"people", "family", "crowd", "rest", "pair", "couple", "police", "sheep", "fish", "deer", "folk"}
)
