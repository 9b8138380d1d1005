"""Templates to text: `[a|b|c]` chooses one (nested, an empty choice allowed), `{slot}` is filled in, English is tidied.

Tidying makes `a` into `an` where a vowel sound follows, gives a sentence its capital and removes doubled spaces. After
a question or an exclamation that closes a quotation the template decides: `"Who is it?" asked {hero}.` goes on,
`"Come!" {Hero} ran.` starts anew.
"""

import re
from collections.abc import Mapping
from random import Random

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([\w.]+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=(\w+))")
_SENTENCE_START = re.compile(r'((?:[.]"?|[?!]) "?)([a-z])')
_VOWEL_LETTER_CONSONANT_SOUND = ("uni", "use", "usu", "one", "once", "eu")


def expand(template: str, slots: Mapping[str, str], rng: Random) -> str:
    """One text of the template's many. `{Hero}` is `{hero}` with a capital.

    Raises:
        KeyError: the template names a slot that `slots` lacks.
    """
    while _CHOICE.search(template):
        template = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template)
    return tidy(_SLOT.sub(lambda match: _fill(match[1], slots), template))


def tidy(text: str) -> str:
    """Articles, single spaces, and capitals after full stops. The first letter stays as it is."""
    text = " ".join(text.split())
    text = _ARTICLE.sub(lambda match: match[1] + ("n " if starts_with_vowel_sound(match[2]) else " "), text)
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)


def starts_with_vowel_sound(word: str) -> bool:
    """Whether `an` goes before the word."""
    word = word.lower()
    if word.startswith(("hour", "honest", "heir")):
        return True
    return word[0] in "aeiou" and not word.startswith(_VOWEL_LETTER_CONSONANT_SOUND)


def capitalise(text: str) -> str:
    """The text with its first letter upper case, quotation mark or not."""
    for position, character in enumerate(text):
        if character.isalpha():
            return text[:position] + character.upper() + text[position + 1 :]
    return text


def _fill(name: str, slots: Mapping[str, str]) -> str:
    if name in slots:
        return slots[name]
    return capitalise(slots[name[0].lower() + name[1:]])
