"""Agreement of the rules judge with human ratings, next to word count.

    python -m services.teacher.judges.rules.agreement --ratings hanna.jsonl

The file is HANNA (Chhun et al. 2022) with one story a line: `{system, prompt, story, human: {criterion: [ratings]},
human_mean: {criterion: mean}, llm: {judge: {criterion: [ratings]}}}`. Prompts are split into two halves by a hash: the
rules were tuned looking at the `tune` half only; the `test` half is for reporting. Intervals are from a bootstrap over
prompts, because the stories of one prompt are no independent draws.
"""

import argparse
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from services.teacher.judges.rules.correlations import Row, bootstrap, partial_spearman, pearson, spearman
from services.teacher.judges.rules.measures import measure
from services.teacher.judges.rules.scoring import levels

# Which human criterion says most about which of ours; HANNA has none for readability.
PAIRS = (
    ("coherence", "coherence"),
    ("creativity", "surprise"),
    ("creativity", "engagement"),
    ("creativity", "complexity"),
    ("readability", "coherence"),
    ("readability", "complexity"),
)


@dataclass(frozen=True, slots=True)
class Rated:
    """A story with the humans' means, one human against the others, LLM judges' means, and our levels."""

    prompt: str
    system: str
    words: int
    human: dict[str, float]
    raters: dict[str, list[float]]
    llm: dict[str, dict[str, float]]
    rules: dict[str, float]


def half(prompt: str) -> str:
    """`tune` or `test`, by the parity of the prompt's SHA-256."""
    return "tune" if int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 2 == 0 else "test"


def load(path: Path) -> list[Rated]:
    """Read and judge every story.

    Raises:
        OSError, ValueError, KeyError: the file is missing or not in the format above.
    """
    rated = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            llm = {judge: {c: fmean(v) for c, v in given.items()} for judge, given in row.get("llm", {}).items()}
            rated.append(
                Rated(
                    prompt=row["prompt"],
                    system=row["system"],
                    words=len(row["story"].split()),
                    human=row["human_mean"],
                    raters=row["human"],
                    llm=llm,
                    rules=levels(measure(row["story"])),
                )
            )
    return rated


def agreement_row(rated: Sequence[Rated], ours: str, theirs: str, rounds: int) -> str:
    """One line of the table: rules and word count against one human criterion."""
    clusters: defaultdict[str, list[Row]] = defaultdict(list)
    for r in rated:
        clusters[r.prompt].append((r.rules[ours], r.human[theirs], math.log(max(1, r.words))))

    def rules(rows: Sequence[Row]) -> float:
        return spearman([x for x, _, _ in rows], [y for _, y, _ in rows])

    def words(rows: Sequence[Row]) -> float:
        return spearman([n for _, _, n in rows], [y for _, y, _ in rows])

    def difference(rows: Sequence[Row]) -> float:
        return rules(rows) - words(rows)

    def partial(rows: Sequence[Row]) -> float:
        return partial_spearman([x for x, _, _ in rows], [y for _, y, _ in rows], [n for _, _, n in rows])

    rows = [row for cluster in clusters.values() for row in cluster]
    ours_p = pearson([x for x, _, _ in rows], [y for _, y, _ in rows])
    words_p = pearson([n for _, _, n in rows], [y for _, y, _ in rows])
    measures = (rules, words, difference, partial)
    intervals = bootstrap(list(clusters.values()), measures, rounds)
    shown = [f"{f(rows):+.2f} ({low:+.2f} to {high:+.2f})" for f, (low, high) in zip(measures, intervals, strict=True)]
    return f"| {ours} | {theirs} | {' | '.join(shown)} | {ours_p:+.2f} | {words_p:+.2f} |"


def one_against_the_rest(rated: Sequence[Rated], criterion: str) -> float:
    """Mean Spearman of one rater with the mean of the others: how far a single human agrees with humans."""
    count = min(len(r.raters[criterion]) for r in rated)
    return fmean(
        spearman(
            [r.raters[criterion][i] for r in rated],
            [fmean([*r.raters[criterion][:i], *r.raters[criterion][i + 1 :]]) for r in rated],
        )
        for i in range(count)
    )


def report(rated: Sequence[Rated], title: str, rounds: int) -> str:
    """A Markdown table for one set of stories."""
    lines = [
        f"**{title}**: {len(rated)} stories, {len({r.prompt for r in rated})} prompts",
        "",
        "| ours | human | rules, Spearman | log words, Spearman | difference | rules given log words | "
        "rules, Pearson | log words, Pearson |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(agreement_row(rated, ours, theirs, rounds) for ours, theirs in PAIRS)])


def context(rated: Sequence[Rated]) -> str:
    """What humans and language models reach on the same stories, for coherence."""
    parts = [f"one human against the two others {one_against_the_rest(rated, 'coherence'):+.2f}"]
    for judge in sorted({name for r in rated for name in r.llm}):
        known = [r for r in rated if judge in r.llm]
        rho = spearman([r.llm[judge]["coherence"] for r in known], [r.human["coherence"] for r in known])
        parts.append(f"{judge} {rho:+.2f}")
    return "Coherence, Spearman with the human mean on the same stories: " + ", ".join(parts) + "."


def main() -> None:
    """Print the tables for both halves and for the test half without the human-written stories."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=1000, help="bootstrap rounds")
    arguments = parser.parse_args()
    rated = load(arguments.ratings)
    test = [r for r in rated if half(r.prompt) == "test"]
    machine = [r for r in test if r.system != "Human"]
    print(report(test, "test half", arguments.rounds), context(test), sep="\n\n", end="\n\n")
    print(
        report(machine, "test half, stories by machines only", arguments.rounds),
        context(machine),
        sep="\n\n",
        end="\n\n",
    )
    print(report([r for r in rated if half(r.prompt) == "tune"], "tune half", arguments.rounds))


if __name__ == "__main__":
    main()
