"""Less story for the same words: order, form and grammar spoilt. None of these should ever gain."""

import re

from services.teacher.audit.attacks.base import Attack
from services.teacher.audit.material import Scene, each_sentence, sentences, shuffled


def _shuffled_sentences(text: str, scene: Scene) -> str:
    parts = sentences(text)
    scene.rng.shuffle(parts)
    return " ".join(parts)


def _shuffled_inside(text: str, scene: Scene) -> str:
    return each_sentence(text, lambda s, _: shuffled(s.rstrip(".!?").lower(), scene.rng).capitalize() + ".")


def _mixed_tenses(text: str, _: Scene) -> str:
    return each_sentence(text, lambda s, i: re.sub(r"\bwas\b", "is", s.replace(" had ", " has ")) if i % 2 else s)


def _mixed_genders(text: str, scene: Scene) -> str:
    return re.sub(r"\b(he|she)\b", lambda _: scene.rng.choice(["he", "she", "they", "it"]), text)


def _dropped_letters(text: str, scene: Scene) -> str:
    return " ".join(w[:-2] + w[-1:] if len(w) > 4 and scene.rng.random() < 0.4 else w for w in text.split())


def _bare(text: str) -> str:
    return re.sub(r"[^\w\s']", "", text)


ORDER = (
    Attack("word salad", "words shuffled", "", lambda t, s: shuffled(t, s.rng)),
    Attack("word salad", "words shuffled in sentences", "", _shuffled_inside),
    Attack("word salad", "words reversed", "", lambda t, _: " ".join(reversed(t.split()))),
    Attack("word salad", "sentences shuffled", "", _shuffled_sentences),
    Attack("word salad", "sentences reversed", "", lambda t, _: " ".join(reversed(sentences(t)))),
)

FORM = (
    Attack("form", "title case", "", lambda t, _: t.title().replace("'S", "'s")),
    Attack("form", "all capitals", "", lambda t, _: t.upper()),
    Attack("form", "no punctuation", "No capitals either.", lambda t, _: _bare(t).lower()),
    Attack("form", "commas for full stops", "", lambda t, _: re.sub(r"[.!?](?= )", ",", t)),
    Attack(
        "form",
        "a full stop every four words",
        "",
        lambda t, _: re.sub(r"((?:\S+ ){3}\S+) ", r"\1. ", _bare(t)),
    ),
)

DAMAGE = (
    Attack("damage", "cut in mid-sentence", "The last four words gone.", lambda t, _: " ".join(t.split()[:-4])),
    Attack("damage", "cut in half", "", lambda t, _: " ".join(t.split()[: len(t.split()) // 2])),
    Attack("damage", "genders mixed up", "", _mixed_genders),
    Attack(
        "damage",
        "was and were swapped",
        "",
        lambda t, _: re.sub(r"\b(was|were)\b", lambda m: "were" if m.group() == "was" else "was", t),
    ),
    Attack("damage", "articles dropped", "", lambda t, _: re.sub(r"\b(the|a|an) ", "", t)),
    Attack("damage", "tenses mixed", "Every second sentence in the present.", _mixed_tenses),
    Attack("damage", "letters dropped", "The last but one, of two long words in five.", _dropped_letters),
)

ATTACKS = (*ORDER, *FORM, *DAMAGE)
