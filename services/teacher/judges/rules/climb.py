"""How far a search gets that only chooses and orders sentences of unrelated stories.

    python -m services.teacher.judges.rules.climb --corpora FOLDER

FOLDER as for `build`; the `validation` split of the children's stories and of TinyStories. Eight sentences of eight
stories are drawn, then changed one at a time (another sentence, of a story that has none yet, or two in each other's
place) and kept where the total (0-9) rises. Nothing that this finds is a story. Prints the total after so many tries,
and that of the stories' own first sentences.
"""

import argparse
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from services.teacher.judges.rules.measures import measure
from services.teacher.judges.rules.scoring import CRITERIA, levels

CORPORA = ("tinystories_sample.jsonl", "childrens_stories.jsonl")
STORIES, WORDS, SENTENCES = 120, 120, 8
SHORTEST, LONGEST = 4, 22  # words of a sentence
STOPS = (0, 50, 200, 700)  # tries after which to look
SWAPS = 0.3
_SENTENCE = re.compile(r'(?<=[.!?"])\s+(?=[A-Z"])')

Levels = dict[str, float]
Pick = tuple[int, str]  # story, sentence


def told(folder: Path) -> list[list[str]]:
    """The whole sentences at the start of each story."""
    stories = []
    for name in CORPORA:
        with (folder / name).open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        texts = (" ".join(row["text"].split()[:WORDS]) for row in rows if row["split"] == "validation")
        stories += [_SENTENCE.split(text)[:-1] for text in texts]
    random.Random(5).shuffle(stories)
    return [s for s in stories if len(s) >= 3][:STORIES]


def judged(picks: Sequence[Pick]) -> Levels:
    """Levels of the picked sentences as one text."""
    return levels(measure(" ".join(sentence for _, sentence in picks)))


def climb(pool: Sequence[Sequence[str]], seed: int) -> tuple[list[Levels], str]:
    """The best levels after each of STOPS tries, and the last text."""
    rng = random.Random(seed)
    picks = [(i, rng.choice(pool[i])) for i in rng.sample(range(len(pool)), SENTENCES)]
    best = judged(picks)
    seen = [best]
    for at in range(1, STOPS[-1] + 1):
        new = list(picks)
        a, b = rng.sample(range(SENTENCES), 2)
        if rng.random() < SWAPS:
            new[a], new[b] = new[b], new[a]
        else:
            taken = {i for k, (i, _) in enumerate(picks) if k != a}
            story = rng.choice([i for i in range(len(pool)) if i not in taken])
            new[a] = (story, rng.choice(pool[story]))
        found = judged(new)
        if sum(found.values()) > sum(best.values()):
            picks, best = new, found
        if at in STOPS:
            seen.append(best)
    return seen, " ".join(sentence for _, sentence in picks)


def row(name: str, found: Sequence[Levels]) -> str:
    """One line of the table."""
    parts = " | ".join(f"{fmean(f[c] for f in found):.2f}" for c in CRITERIA)
    return f"| {name} | {fmean(sum(f.values()) for f in found):.2f} | {parts} |"


def main() -> None:
    """Print the table as Markdown, and one text that a search came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--searches", type=int, default=12)
    arguments = parser.parse_args()
    stories = told(arguments.corpora)
    print(f"| text | total | {' | '.join(CRITERIA)} |", "|---|---|---|---|---|", sep="\n")
    print(row("the stories' own first eight sentences", [judged([(0, x) for x in s[:SENTENCES]]) for s in stories]))
    pool = [kept for s in stories if (kept := [x for x in s if SHORTEST <= len(x.split()) <= LONGEST])]
    searches = [climb(pool, seed) for seed in range(arguments.searches)]
    for i, stop in enumerate(STOPS):
        print(row(f"unrelated sentences, {stop} tries" if stop else "unrelated sentences", [s[i] for s, _ in searches]))
    print(f"\n> {searches[0][1]}")


if __name__ == "__main__":
    main()
