"""A small run with every part of a submission, its predictions made up, and the fast data that go with them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from fabula_proto import Measure, SuiteResult
from services.evaluator.adapters.reading_data import load_reading
from services.evaluator.engine import ItemsDone
from services.evaluator.items import Candidate, Item, ItemSet, choice, minimal_pair
from services.evaluator.suites import blimp, blimp_supplement, comps, entity_tracking, ewok, glue, reading, wug_adj
from services.evaluator.suites import wug_past as wug_past_suite
from services.local.evaluated import read_run
from services.local.pipeline_results import collect, write_results
from services.local.submission import Expected, Part, checked
from tests.evaluated_runs import Suite, new_run, of_outcome, write_evaluation
from tests.reading_tables import rows, write

TRACK, REVISIONS, CONTEXTS = "strict-small", ("chck_1M", "chck_2M"), 2
READING = rows(15)
RANKED = {
    "blimp": blimp.evaluate,
    "blimp_supplement": blimp_supplement.evaluate,
    "ewok": ewok.evaluate,
    "entity_tracking": entity_tracking.evaluate,
    "comps": comps.evaluate,
    "wug_adj": wug_adj.evaluate,
    "wug_past": wug_past_suite.evaluate,
}
Sizes = dict[str, tuple[str, dict[str, int]]]  # suite -> folder, paradigm -> items
BOTH: Sizes = {
    "wug_adj": ("wug_adj/wug_adj_nominalization", {"wug_adj": 7}),
    "wug_past": ("wug_past/wug_past_tense", {"wug_past": 5}),
}
FAST: Sizes = {
    "blimp": ("blimp/blimp_fast", {"adjunct_island": 4, "principle_A_case_1": 4}),
    "blimp_supplement": ("blimp/supplement_fast", {"hypernym": 3, "turn_taking": 3}),
    "ewok": ("ewok/ewok_fast", {"agent-properties": 3, "social-relations": 3}),
    "entity_tracking": ("entity_tracking/entity_tracking_fast", {"regular_0_ops": 3, "regular_2_ops": 4}),
    **BOTH,
    "reading": ("reading", {"reading": len(READING)}),
}
FULL: Sizes = {
    "blimp": ("blimp/blimp_filtered", {"adjunct_island": 3, "principle_A_case_1": 2}),
    "blimp_supplement": ("blimp/supplement_filtered", {"hypernym": 2, "turn_taking": 3}),
    "ewok": ("ewok/ewok_filtered", {"agent-properties": 2, "social-relations": 4}),
    "entity_tracking": ("entity_tracking/entity_tracking", {"regular_0_ops": 2, "ambiref_1_ops": 3}),
    **BOTH,
    "comps": ("comps/comps", {"base": 3, "wugs": 2, "wugs_dist_before": 2, "wugs_dist_in_between": 2}),
    "reading": FAST["reading"],
}
GLUE = {"boolq": 3, "mnli": 4, "mrpc": 2, "multirc": 3, "qqp": 2, "rte": 3, "wsc": 2}


def expected() -> Expected:
    """In place of the leaderboard's sizes; names in lower case, as there."""

    def parts(sizes: Sizes) -> dict[str, Part]:
        return {s: Part(path=p, items={uid.lower(): n for uid, n in items.items()}) for s, (p, items) in sizes.items()}

    return Expected(full=parts(FULL), fast=parts(FAST), glue=GLUE, aoa=CONTEXTS)


class Noise:
    """A scorer that draws; exact in every place, for it only divides."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def score(self, items: Sequence[Item], _done: ItemsDone) -> list[tuple[float, ...]]:
        """The right one wins somewhat more often."""
        return [tuple(self._rng.random() + (i == 0) / 4 for i in range(len(item.candidates))) for item in items]


def write_data(folder: Path) -> Path:
    """`fast_eval`, of which the pipeline's script takes the answers again."""
    for suite, (path, sizes) in FAST.items():
        place = folder / Path(path).name
        place.mkdir(parents=True)
        for uid, count in sizes.items():
            name = "regular" if suite == "entity_tracking" else place.name if suite.startswith("wug") else uid
            with (place / f"{name}.jsonl").open("a", encoding="utf-8") as opened:
                opened.writelines(json.dumps(row) + "\n" for row in _rows(suite, uid, count))
    (folder / "reading" / "reading.jsonl").unlink()
    write(folder / "reading" / "reading_data.csv", READING)
    return folder


def _rows(suite: str, uid: str, count: int) -> list[dict[str, Any]]:
    rng = Random(uid)
    if suite.startswith("wug"):
        return [{"sentences": f"a {uid} {i}\tthe {uid} {i}", "ratio": rng.randrange(100) / 100} for i in range(count)]
    if suite == "ewok":
        return [{"Target1": f"Ann has {i}.", "Target2": f"Bob has {i}."} for i in range(count)]
    if suite == "entity_tracking":
        options = [[f" the {thing} {i}." for thing in ("bell", "coin", "drum", "egg", "fan")] for i in range(count)]
        return [{"options": row, "numops": int(uid.split("_")[1])} for row in options]
    return [{"sentence_good": f"Good {uid} {i}.", "sentence_bad": f"Bad {uid} {i}."} for i in range(count)]


def _items(suite: str, uid: str, count: int) -> Iterator[Item]:
    if suite == "comps":
        yield from [Item(uid, (Candidate("A fox", " has fur."), Candidate("A lamp", " has fur.")))] * count
        return
    for row in _rows(suite, uid, count):
        if suite.startswith("wug"):
            yield Item(uid, tuple(Candidate("", text) for text in row["sentences"].split("\t")), rating=row["ratio"])
        elif suite == "ewok":
            groups = (("context_type", "a"), ("context_contrast", "b"), ("target_contrast", "c"))
            yield choice(uid, "So.", [f" {row['Target1']}", f" {row['Target2']}"], groups)
        elif suite == "entity_tracking":
            split, ops, _ = uid.rsplit("_", 2)
            yield choice(uid, "The box holds", row["options"], (("split", split), ("ops", ops)))
        else:
            yield minimal_pair(uid, row["sentence_good"], row["sentence_bad"], (("field", "f"), ("term", "t")))


def _suites(sizes: Sizes, data: Path, rng: Random) -> Iterator[Suite]:
    """Every zero-shot suite but aoa, by the suites' own arithmetic."""
    for suite, (path, counts) in sizes.items():
        if suite == "reading":
            words = load_reading(data / "reading" / "reading_data.csv")
            values = [10 * rng.random() for _ in words.words]
            before = [10 * rng.random() if word.prev_item is not None else float("nan") for word in words.words]
            outcome = reading.evaluate(words, values, before, 0)
        else:
            items = tuple(item for uid, count in counts.items() for item in _items(suite, uid, count))
            outcome = RANKED[suite](ItemSet(items, "here"), Noise(rng), 0, lambda _done, _total: None)
        yield of_outcome(suite, outcome, f"zero_shot/causal/{path}")


def _surprisals(revision: str) -> Suite:
    row = {"step": revision, "word_count": 1, "target_word": "fox", "context": "an old", "surprisal": 2.5}
    document = {"metadata": {}, "results": [{**row, "context_id": i} for i in range(CONTEXTS)]}
    result = SuiteResult(
        suite="aoa",
        status="ok",
        source="here",
        headline="surprisal",
        unit="nats",
        measures={"surprisal": Measure(value=2.5, low=2.5, high=2.5, n=CONTEXTS)},
        results_path="zero_shot/causal/AoA_word",
    )
    return Suite(result, {"surprisal.json": json.dumps(document)})


def write_run(folder: Path, data: Path) -> Path:
    """Evaluations of both revisions on `data`, and of the last one on everything else."""
    rng, run = Random(1), new_run(folder)
    for number, revision in enumerate(REVISIONS, start=1):
        suites = [*_suites(FAST, data, rng), _surprisals(revision)]
        write_evaluation(run, revision, (number * 10**6, 0), suites)
    answers = {
        task: glue.Answers(*(tuple(rng.randrange(2) for _ in range(count)) for _ in range(2)))
        for task, count in GLUE.items()
    }
    left = {suite: part for suite, part in FULL.items() if suite not in BOTH and suite != "reading"}
    full = [*_suites(left, data, rng), of_outcome("glue", glue.evaluate(answers, "here", 0), "finetune")]
    write_evaluation(run, REVISIONS[-1], (len(REVISIONS) * 10**6, 0), full, name="full")
    return run


def write_submission(run: Path, to: Path) -> Path:
    """What `fabula results RUN --to DIR --submission` writes, with these sizes and revisions; the submission's file."""
    found = replace(collect(read_run(run), TRACK), revisions=REVISIONS)
    with mock.patch("services.local.submission.expected", expected):
        name, text, _ = checked(found, partial=False)
    return write_results(found, to, (name, text)) / name
