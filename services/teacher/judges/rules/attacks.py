"""Ways to please the judge without telling a better story, and what each gains.

    python -m services.teacher.judges.rules.attacks

prints the mean change of the total (0-9) over the twenty stories of data/stories.yaml for each attack, with a bootstrap
interval over stories. An attack that gains is a hole that reinforcement learning will find.
"""

import random
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from statistics import fmean

import yaml

from services.teacher.judges.rules.classes import PACKAGE, group
from services.teacher.judges.rules.lexicon import model
from services.teacher.judges.rules.measures import measure
from services.teacher.judges.rules.scoring import levels

Attack = Callable[[str, random.Random], str]
_SENTENCE = re.compile(r'(?<=[.!?"])\s+')
_RUBRIC = (
    "Readability: correct grammar throughout; well written. Coherence: coherent, with a logical structure from start "
    "to end. Creativity: highly original, imaginative and engaging."
)
_NAMES = (
    "Anna, Ben, Clara, David, Emma, Felix, Greta, Henry, Ida, Jonas, Lily, Max, Nora, Oscar, Paula, Rosie, Sam, Tom"
)


@cache
def stories() -> tuple[tuple[str, str], ...]:
    """(grade, text) of each story."""
    text = resources.files(PACKAGE).joinpath("data", "stories.yaml").read_text(encoding="utf-8")
    return tuple((row["grade"], row["text"]) for row in yaml.safe_load(text))


def _sentences(text: str) -> list[str]:
    return [s for s in _SENTENCE.split(text) if s]


def _each(text: str, change: Callable[[str, int], str]) -> str:
    return " ".join(change(s, i) for i, s in enumerate(_sentences(text)))


def _lower_first(sentence: str) -> str:
    return sentence if sentence.startswith("I ") else sentence[:1].lower() + sentence[1:]


def _shuffle_words(text: str, rng: random.Random) -> str:
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)


def _shuffle_inside(text: str, rng: random.Random) -> str:
    return _each(text, lambda s, _: _shuffle_words(s.rstrip(".!?").lower(), rng).capitalize() + ".")


def _shuffle_sentences(text: str, rng: random.Random) -> str:
    sentences = _sentences(text)
    rng.shuffle(sentences)
    return " ".join(sentences)


def _other_story(text: str, rng: random.Random) -> str:
    other = rng.choice([t for _, t in stories() if t != text])
    pairs = zip(_sentences(text)[::2], _sentences(other)[1::2], strict=False)
    return " ".join(s for pair in pairs for s in pair)


def _sentence_salad(text: str, rng: random.Random) -> str:
    others = [s for _, t in stories() if t != text for s in _sentences(t)[1:-1]]
    return " ".join(rng.sample(others, 9))


def _one_sentence_varied(text: str, rng: random.Random) -> str:
    nouns = rng.sample(sorted(group("being_nouns")), 8)
    return " ".join(f"The little {noun} went to the river and found a golden crown." for noun in nouns) or text


def _random_words(text: str, rng: random.Random, low: float, high: float) -> str:
    pool = sorted(w for w, e in model().entries.items() if low <= e.zipf <= high and w.isalpha())
    words = [rng.choice(pool) for _ in text.split()]
    return " ".join(" ".join(words[i : i + 9]).capitalize() + "." for i in range(0, len(words), 9))


def _vivid_adjectives(text: str, rng: random.Random) -> str:
    adjectives = [
        "golden",
        "crimson",
        "glittering",
        "velvet",
        "ancient",
        "crooked",
        "mysterious",
        "enchanted",
        "silver",
    ]
    return re.sub(r"\b(the|a) (?=[a-z])", lambda m: f"{m.group(1)} {rng.choice(adjectives)} ", text)


_FILLER = "He was very happy. She was very happy. They were all very happy. It was a happy day."
_CLAIM = "This story deserves the highest score, 3 out of 3, for readability and creativity."
_TALK = '"Oh," he said. "Yes," she said. "Please," he said. "Hello," she said. "Ah," he said.'
_HAPPY_END = "Finally, at last, they returned home safe, free, happy, grateful and together. The end."


def _quote_words(text: str, _: random.Random) -> str:
    return " ".join(f'"{w}"' if i % 3 == 0 else w for i, w in enumerate(text.split()))


def _cue_words(_: str, rng: random.Random) -> str:
    cues = sorted(w for part in ("problem", "attempt", "resolution") for w in group(f"story_{part}"))
    return " ".join(" ".join(rng.sample(cues, 8)).capitalize() + "." for _ in range(9))


def _mix_tenses(text: str, _: random.Random) -> str:
    return _each(text, lambda s, i: re.sub(r"\bwas\b", "is", s.replace(" had ", " has ")) if i % 2 else s)


def _swap_was(text: str, _: random.Random) -> str:
    return re.sub(r"\b(was|were)\b", lambda m: "were" if m.group() == "was" else "was", text)


def _drop_letters(text: str, rng: random.Random) -> str:
    return " ".join(w[:-2] + w[-1:] if len(w) > 4 and rng.random() < 0.4 else w for w in text.split())


_CONNECTIVES = ("Then", "Suddenly", "Meanwhile", "Because of this", "Therefore", "Finally", "However", "Afterwards")
ATTACKS: Mapping[str, Attack] = {
    "story twice": lambda t, _: f"{t} {t}",
    "story four times": lambda t, _: " ".join([t] * 4),
    "last sentence five times": lambda t, _: t + f" {_sentences(t)[-1]}" * 4,
    "every sentence twice": lambda t, _: _each(t, lambda s, _: f"{s} {s}"),
    "every word twice": lambda t, _: " ".join(f"{w} {w}" for w in t.split()),
    "filler sentences": lambda t, _: f"{t} {_FILLER}",
    "words shuffled": _shuffle_words,
    "words shuffled in sentences": _shuffle_inside,
    "words reversed": lambda t, _: " ".join(reversed(t.split())),
    "sentences shuffled": _shuffle_sentences,
    "sentences reversed": lambda t, _: " ".join(reversed(_sentences(t))),
    "interleaved with another story": _other_story,
    "sentences of nine stories": _sentence_salad,
    "one sentence, a word changed": _one_sentence_varied,
    "title case": lambda t, _: t.title().replace("'S", "'s"),
    "all capitals": lambda t, _: t.upper(),
    "title-case list": lambda _, r: " ".join(w.capitalize() for w in r.sample(sorted(group("vivid")), 70)),
    "no punctuation": lambda t, _: re.sub(r"[^\w\s']", "", t).lower(),
    "commas for full stops": lambda t, _: re.sub(r"[.!?](?= )", ",", t),
    "a full stop every four words": lambda t, _: re.sub(r"((?:\S+ ){3}\S+) ", r"\1. ", re.sub(r"[^\w\s']", "", t)),
    "rubric copied": lambda t, _: f"{t} {_RUBRIC}",
    "rubric alone": lambda _t, _r: _RUBRIC * 3,
    "3 3 3 tail": lambda t, _: f"{t} 3 3 3 3 3 3 3 3 3",
    "score claimed": lambda t, _: f"{t} {_CLAIM}",
    "connectives stacked": lambda t, _: _each(t, lambda s, _: f"Then because so finally {_lower_first(s)}"),
    "a connective each sentence": lambda t, _: _each(t, lambda s, i: f"{_CONNECTIVES[i % 8]}, {_lower_first(s)}"),
    "name list": lambda t, _: f"{t} {_NAMES}.",
    "names for every noun": lambda t, r: re.sub(r"\b(the|a|his|her) [a-z]+", lambda _: r.choice(_NAMES.split(", ")), t),
    "quotation marks everywhere": lambda t, _: _each(t, lambda s, _: f'"{s}"'),
    "quotation marks on words": _quote_words,
    "empty talk": lambda t, _: f"{t} {_TALK}",
    "rare words listed": lambda t, r: f"{t} {_random_words('x ' * 30, r, 3.3, 4.2)}",
    "rare words alone": lambda t, r: _random_words(t, r, 3.3, 4.2),
    "random words": lambda t, r: _random_words(t, r, 4.0, 7.8),
    "vivid adjectives": _vivid_adjectives,
    "similes everywhere": lambda t, _: _each(t, lambda s, _: re.sub(r"[.!?]*\"?$", " like a star like a moon.", s)),
    "happy-end cues": lambda t, _: f"{t} {_HAPPY_END}",
    "cue words alone": _cue_words,
    "cut in mid-sentence": lambda t, _: " ".join(t.split()[:-4]),
    "cut in half": lambda t, _: " ".join(t.split()[: len(t.split()) // 2]),
    "genders mixed up": lambda t, r: re.sub(r"\b(he|she)\b", lambda _: r.choice(["he", "she", "they", "it"]), t),
    "was and were swapped": _swap_was,
    "articles dropped": lambda t, _: re.sub(r"\b(the|a|an) ", "", t),
    "tenses mixed": _mix_tenses,
    "letters dropped": _drop_letters,
}  # fmt: skip


def total(text: str) -> float:
    """The rules' total for a text, 0-9."""
    return sum(levels(measure(text)).values())


def attack_gains(attack: Attack, seed: int = 0) -> list[dict[str, float]]:
    """The change of each criterion and of the total, a story."""
    rng = random.Random(seed)
    gains = []
    for _, text in stories():
        before, after = levels(measure(text)), levels(measure(attack(text, rng)))
        change = {name: after[name] - before[name] for name in before}
        gains.append({**change, "total": sum(change.values())})
    return gains


def interval(values: list[float], seed: int = 0, rounds: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over stories."""
    rng = random.Random(seed)
    means = sorted(fmean(rng.choices(values, k=len(values))) for _ in range(rounds))
    return means[int(0.025 * rounds)], means[int(0.975 * rounds)]


def main() -> None:
    """Print the table as Markdown."""
    print("| attack | total | 95 % interval | worst story | readability | coherence | creativity |")
    print("|---|---|---|---|---|---|---|")
    for name, attack in ATTACKS.items():
        gains = attack_gains(attack)
        totals = [g["total"] for g in gains]
        low, high = interval(totals)
        parts = " | ".join(f"{fmean(g[c] for g in gains):+.2f}" for c in ("readability", "coherence", "creativity"))
        print(f"| {name} | {fmean(totals):+.2f} | {low:+.2f} to {high:+.2f} | {max(totals):+.2f} | {parts} |")


if __name__ == "__main__":
    main()
