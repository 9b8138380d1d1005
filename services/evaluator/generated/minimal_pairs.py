"""Minimal pairs in the words of a fairy tale, told in the past tense.

Ours, not BLiMP's: a quick look at grammar in words that a small student has met. Every paradigm is balanced, so that
preferring one form always (was over were, himself over herself) scores about 50 %; polarity_ever alone is not, since
"ever" needs a negation and nothing of the kind needs its absence.
"""

import random
from collections.abc import Callable

from services.evaluator.generated import SOURCE
from services.evaluator.items import Item, ItemSet, minimal_pair

PER_PARADIGM = 40

ANIMALS = ("fox", "owl", "bear", "rabbit", "bird", "cat", "dog", "frog", "horse", "lion")
PEOPLE = ("king", "queen", "girl", "boy", "prince", "brother", "sister", "farmer", "friend", "hunter")
MALE = ("king", "boy", "prince", "brother", "father", "man", "grandfather", "son")
FEMALE = ("queen", "girl", "princess", "sister", "mother", "woman", "grandmother", "daughter")
THINGS = ("lantern", "crown", "flower", "stone", "key", "book", "ring", "cake", "star", "tree")
PLACES = ("forest", "castle", "river", "garden", "house", "village", "hill", "tree")
MOODS = ("happy", "sad", "tired", "hungry", "afraid", "kind", "lost", "old", "angry", "alone")
LOOKS = ("old", "little", "golden", "beautiful", "red", "small", "big", "strange")
VOWEL_NOUNS = ("apple", "egg", "owl", "island", "oak", "old man", "angry bear", "ugly frog", "evil king", "empty box")
OTHER_NOUNS = (
    "lantern",
    "stone",
    "fox",
    "river",
    "tree",
    "young man",
    "kind bear",
    "little frog",
    "good king",
    "red box",
)
TRANSITIVE = ("found", "took", "saw", "lost", "held", "kept", "brought", "broke")
NEEDS_OBJECT = ("found", "took", "held", "brought", "kept")
INTRANSITIVE = ("slept", "smiled", "arrived", "laughed", "fell", "cried", "danced", "appeared")
REFLEXIVE = ("saw", "hurt", "asked", "told", "helped", "loved", "hid", "found")
BASE_AND_PAST = (
    ("find", "found"), ("see", "saw"), ("take", "took"), ("know", "knew"), ("give", "gave"), ("hear", "heard"),
    ("want", "wanted"), ("lose", "lost"), ("bring", "brought"), ("keep", "kept"),
)  # fmt: skip
PAST_AND_PARTICIPLE = (
    ("took", "taken"), ("saw", "seen"), ("gave", "given"), ("broke", "broken"), ("ate", "eaten"), ("wrote", "written"),
    ("knew", "known"), ("forgot", "forgotten"), ("hid", "hidden"), ("stole", "stolen"),
)  # fmt: skip

Pair = tuple[str, str]
Maker = Callable[[random.Random, bool], Pair]  # the flag balances the paradigm: it alternates


def _plural(noun: str) -> str:
    return f"{noun}es" if noun == "fox" else f"{noun}s"


def _agreement(rng: random.Random, plural: bool) -> Pair:
    noun, mood = rng.choice(ANIMALS + PEOPLE), rng.choice(MOODS)
    right, wrong = ("were", "was") if plural else ("was", "were")
    subject = _plural(noun) if plural else noun
    return f"The {subject} {right} {mood}.", f"The {subject} {wrong} {mood}."


def _agreement_attractor(rng: random.Random, plural: bool) -> Pair:
    noun, other = rng.sample(ANIMALS + PEOPLE, 2)
    preposition, mood = rng.choice(("near", "behind", "beside", "with")), rng.choice(MOODS)
    right, wrong = ("were", "was") if plural else ("was", "were")
    subject, attractor = (_plural(noun), other) if plural else (noun, _plural(other))
    start = f"The {subject} {preposition} the {attractor}"
    return f"{start} {right} {mood}.", f"{start} {wrong} {mood}."


def _determiner(rng: random.Random, plural: bool, adjective: str = "") -> Pair:
    who, verb, thing = rng.choice(ANIMALS + PEOPLE), rng.choice(TRANSITIVE), rng.choice(THINGS)
    one, many = rng.choice((("this", "these"), ("that", "those")))
    right, wrong = (many, one) if plural else (one, many)
    noun = adjective + (_plural(thing) if plural else thing)
    return f"The {who} {verb} {right} {noun}.", f"The {who} {verb} {wrong} {noun}."


def _determiner_adjective(rng: random.Random, plural: bool) -> Pair:
    return _determiner(rng, plural, f"{rng.choice(LOOKS)} ")


def _anaphor_gender(rng: random.Random, female: bool) -> Pair:
    who, verb, place = rng.choice(FEMALE if female else MALE), rng.choice(REFLEXIVE), rng.choice(PLACES)
    right, wrong = ("herself", "himself") if female else ("himself", "herself")
    return f"The {who} {verb} {right} near the {place}.", f"The {who} {verb} {wrong} near the {place}."


def _anaphor_number(rng: random.Random, plural: bool) -> Pair:
    female = rng.random() < 0.5
    who = rng.choice(("queen", "girl", "sister") if female else ("king", "boy", "brother"))
    verb, place = rng.choice(REFLEXIVE), rng.choice(PLACES)
    one = "herself" if female else "himself"
    right, wrong = ("themselves", one) if plural else (one, "themselves")
    subject = _plural(who) if plural else who
    return f"The {subject} {verb} {right} near the {place}.", f"The {subject} {verb} {wrong} near the {place}."


def _possessive(rng: random.Random, female: bool) -> Pair:
    who, thing = rng.choice(FEMALE if female else MALE), rng.choice((*THINGS, "house", "garden"))
    right, wrong = ("her", "his") if female else ("his", "her")
    start = f"The {who} {rng.choice(('wanted', 'had', 'wished for'))} a {thing} of"
    return f"{start} {right} own.", f"{start} {wrong} own."


def _article(rng: random.Random, vowel: bool) -> Pair:
    who, verb = rng.choice(("boy", "girl", "queen", "king")), rng.choice(("saw", "found", "met", "wanted"))
    right, wrong = ("an", "a") if vowel else ("a", "an")
    noun = rng.choice(VOWEL_NOUNS if vowel else OTHER_NOUNS)
    return f"The {who} {verb} {right} {noun}.", f"The {who} {verb} {wrong} {noun}."


def _argument(rng: random.Random, transitive: bool) -> Pair:
    who, with_object, without = rng.choice(ANIMALS + PEOPLE), rng.choice(NEEDS_OBJECT), rng.choice(INTRANSITIVE)
    if transitive:
        thing = rng.choice(THINGS)
        return f"The {who} {with_object} the {thing}.", f"The {who} {without} the {thing}."
    place = rng.choice(PLACES)
    return f"The {who} {without} in the {place}.", f"The {who} {with_object} in the {place}."


def _verb_form(rng: random.Random, past: bool) -> Pair:
    who, thing = rng.choice(ANIMALS + PEOPLE), rng.choice(THINGS)
    base, finite = rng.choice(BASE_AND_PAST)
    if past:
        return f"The {who} {finite} the {thing}.", f"The {who} {base} the {thing}."
    return f"The {who} did not {base} the {thing}.", f"The {who} did not {finite} the {thing}."


def _participle(rng: random.Random, perfect: bool) -> Pair:
    who, thing = rng.choice(ANIMALS + PEOPLE), rng.choice(THINGS)
    finite, participle = rng.choice(PAST_AND_PARTICIPLE)
    if perfect:
        return f"The {who} had {participle} the {thing}.", f"The {who} had {finite} the {thing}."
    return f"The {who} {finite} the {thing}.", f"The {who} {participle} the {thing}."


def _polarity(rng: random.Random, nobody: bool) -> Pair:
    seen = f"ever {rng.choice(('seen', 'found', 'touched', 'lost'))} the {rng.choice(THINGS)}."
    if nobody:
        return f"Nobody had {seen}", f"Somebody had {seen}"
    who = rng.choice(ANIMALS + PEOPLE)
    return f"No {who} had {seen}", f"One {who} had {seen}"


PARADIGMS: dict[str, tuple[str, Maker]] = {  # paradigm: (what it tests, how it is made)
    "subject_verb_agreement": ("agreement", _agreement),
    "subject_verb_agreement_attractor": ("agreement", _agreement_attractor),
    "determiner_noun": ("agreement", _determiner),
    "determiner_adjective_noun": ("agreement", _determiner_adjective),
    "anaphor_gender": ("anaphora", _anaphor_gender),
    "anaphor_number": ("anaphora", _anaphor_number),
    "possessive_gender": ("anaphora", _possessive),
    "article_a_an": ("forms", _article),
    "verb_form_after_did": ("forms", _verb_form),
    "participle_after_had": ("forms", _participle),
    "argument_structure": ("syntax", _argument),
    "polarity_ever": ("syntax", _polarity),
}


def _distinct(make: Maker, rng: random.Random, count: int) -> list[Pair]:
    found: dict[Pair, None] = {}
    while len(found) < count:
        found.setdefault(make(rng, len(found) % 2 == 0))
    return list(found)


def minimal_pairs(seed: int, per_paradigm: int = PER_PARADIGM) -> ItemSet:
    """All paradigms, `per_paradigm` distinct pairs each. Twelve paradigms of 40 make 480 pairs."""
    items: list[Item] = []
    for uid, (field, make) in PARADIGMS.items():
        rng = random.Random(f"{seed}/{uid}")
        items += [minimal_pair(uid, good, bad, (("field", field),)) for good, bad in _distinct(make, rng, per_paradigm)]
    return ItemSet(tuple(items), SOURCE)
