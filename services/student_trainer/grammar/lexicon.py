"""Who and what a tale is about: its cast, as slots for the templates."""

from dataclasses import dataclass
from random import Random

from services.student_trainer.grammar.material import phrases, words


@dataclass(frozen=True)
class Character:
    """Somebody in a tale: a kind of being, a gender to agree with, sometimes a name."""

    kind: str
    adjective: str
    female: bool
    name: str | None = None

    def slots(self, role: str) -> dict[str, str]:
        """The role's forms: `hero`, `a_hero`, `hero.he`, `hero.him`, `hero.his`, `hero.himself`, `hero.kind`."""
        pronouns = ("she", "her", "her", "herself") if self.female else ("he", "him", "his", "himself")
        introduced = f"a {self.adjective} {self.kind}" + (f" named {self.name}" if self.name else "")
        forms = dict(zip(("he", "him", "his", "himself"), pronouns, strict=True))
        return {
            role: self.name or f"the {self.kind}",
            f"a_{role}": introduced,
            f"{role}.kind": self.kind,
            **{f"{role}.{form}": word for form, word in forms.items()},
        }


def neutral_kinds() -> tuple[str, ...]:
    """Beasts and people who may be a he or a she."""
    return (*words("beasts"), *words("folk_either"))


def being(rng: Random, adjectives: str, kinds: list[str], named: float) -> Character:
    """Somebody new; `adjectives` names the list they come from, `named` is the chance of a name."""
    kind = rng.choice(kinds)
    female = kind in words("folk_her") or (kind not in words("folk_his") and rng.random() < 0.5)
    name = rng.choice(words("her_names" if female else "his_names")) if rng.random() < named else None
    return Character(kind, rng.choice(words(adjectives)), female, name)


def cast(rng: Random) -> dict[str, str]:
    """Slots of a tale: a hero, a helper and a villain of three kinds, things, places, food, an image.

    `he`, `him`, `his`, `himself` are the hero's; `thing` and `other` are two things, `a_gift` is the other one.
    """
    hero = being(rng, "hero_adjectives", [*neutral_kinds(), *words("folk_her"), *words("folk_his")], named=0.7)
    helper = being(rng, "helper_adjectives", [k for k in neutral_kinds() if k != hero.kind], named=0.0)
    taken = (hero.kind, helper.kind)
    villain = being(rng, "villain_adjectives", [k for k in words("villains") if k not in taken], named=0.0)
    things, places, foods = (
        rng.sample(words("things"), 2),
        rng.sample(phrases("places"), 2),
        rng.sample(words("foods"), 2),
    )
    slots = {**hero.slots("hero"), **helper.slots("helper"), **villain.slots("villain")}
    for form in ("he", "him", "his", "himself"):
        slots[form] = slots[f"hero.{form}"]
    adjective, other_adjective = rng.sample(words("thing_adjectives"), 2)
    slots |= {
        "thing": things[0],
        "a_thing": f"a {adjective} {things[0]}",
        "the_thing": f"the {adjective} {things[0]}",
        "other": things[1],
        "a_gift": f"a {other_adjective} {things[1]}",
        "place": places[0],
        "place2": places[1],
        "food": foods[0],
        "food2": foods[1],
        "home": rng.choice(phrases("homes")),
        "magic": rng.choice(phrases("magic")),
        "loves": rng.choice(phrases("loves")),
        "image": rng.choice(phrases("images")),
    }
    return slots
