"""Fit the thread model (data/thread.json): is this one story, or sentences of several?

    python -m services.teacher.judges.rules.build_thread --corpora FOLDER

FOLDER as for `build`; passages of children's stories and TinyStories of split `train` against salads: sentences of as
many other stories. A third of the salads are the best chained ones of DRAWN: what a search against the entity features
would find. The same input gives the same file.
"""

import argparse
import random
import re
from pathlib import Path

import numpy as np

from services.teacher.judges.rules.build import DATA, read_train
from services.teacher.judges.rules.curves import Curve, render
from services.teacher.judges.rules.measures import Measures, measure
from services.teacher.judges.rules.solve import logistic

CORPORA = {"tinystories_sample.jsonl": 300, "childrens_stories.jsonl": 400}  # stories taken from each
LENGTHS = (50, 65, 80, 95)  # words of a passage
LONGEST = 4_000  # characters read of a story
DRAWN = 12
PENALTY = 0.002
_SENTENCE = re.compile(r'(?<=[.!?"])\s+(?=[A-Z"])')
# What each feature may say, and where it has said enough: past these no search gains by more of it.
CURVES = {
    "continuity.named": Curve(0.0, 0.35, 0.0),
    "continuity.linked": Curve(0.0, 0.5, 0.0),
    "continuity.chained": Curve(0.0, 0.5, 0.0),
    "continuity.unprepared": Curve(0.5, 0.0, 0.0),
    "continuity.lone_beings": Curve(1.0, 0.0, 0.0),
    "continuity.new_per_sentence": Curve(3.0, 1.0, 0.0),
    "topics.related": Curve(-0.05, 0.2, 0.0),
    "style.unattributed": Curve(0.6, 0.0, 0.0),
}


def passages(text: str, rng: random.Random) -> list[list[str]]:
    """The first stretches of whole sentences of a story, at most two."""
    out: list[list[str]] = []
    current: list[str] = []
    most = rng.choice(LENGTHS)
    for sentence in _SENTENCE.split(text[:LONGEST])[:-1]:
        if len(" ".join([*current, sentence]).split()) > most and current:
            out.append(current)
            current, most = [], rng.choice(LENGTHS)
        current.append(sentence)
    return [p for p in out if len(p) >= 4][:2]


def salad(told: list[list[str]], sentences: int, rng: random.Random) -> str:
    """A sentence each of as many stories."""
    return " ".join(rng.choice(p) for p in rng.sample(told, sentences))


def chained(found: Measures) -> float:
    """How well sentences hang together by nouns and pronouns alone."""
    values = found.flat()
    return values.get("continuity.linked", 0.0) + values.get("continuity.chained", 0.0)


def main() -> None:
    """Read, draw, measure, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True)
    folder = parser.parse_args().corpora
    rng = random.Random(0)
    real: list[Measures] = []
    mixed: list[Measures] = []
    for name, count in CORPORA.items():
        told = [passages(text, rng) for text in rng.sample(list(read_train(folder, name, 10**9)), count)]
        firsts = [p for story in told for p in story]
        real += [measure(" ".join(p)) for p in firsts]
        for i, p in enumerate(firsts):
            draws = [measure(salad(firsts, len(p), rng)) for _ in range(DRAWN if i % 3 == 0 else 1)]
            mixed.append(max(draws, key=chained))
    rows = [(m.flat(), label) for found, label in ((real, 1.0), (mixed, 0.0)) for m in found if m.tells]
    design = np.array([[curve.quality(values[name]) for name, curve in CURVES.items()] for values, _ in rows])
    labels = np.array([label for _, label in rows])
    bias, weights = logistic(design, labels, np.full(len(rows), 1.0 / len(rows)), PENALTY)
    curves = {f: c._replace(weight=float(w)) for (f, c), w in zip(CURVES.items(), weights, strict=True)}
    (DATA / "thread.json").write_text(render(bias, curves), encoding="utf-8")
    right = ((design @ weights + bias > 0.0) == (labels > 0.5)).mean()
    print(f"{len(real)} passages, {len(mixed)} salads; {100 * right:.1f} % told apart (in sample)")


if __name__ == "__main__":
    main()
