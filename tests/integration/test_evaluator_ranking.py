"""The ranking suites from files to files: what a real checkpoint prefers, in the pipeline's layout."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from fabula_proto import EvaluationReport, SuiteResult
from services.evaluator.adapters import eval_data
from services.evaluator.evaluation import evaluate_checkpoint
from services.evaluator.items import chosen
from services.evaluator.request import EvaluationRequest
from services.evaluator.settings import EvaluatorSettings
from tests.evaluator_helpers import brute_force, save_checkpoint

THINGS = ("fox", "lamp", "river", "bell", "cake", "door")


def pairs() -> list[tuple[str, str]]:
    return [(a, b) for a in THINGS for b in THINGS if a != b]


def blimp(a: str, b: str) -> dict[str, Any]:
    sentences = {"sentence_good": f"The {a} saw the {b}.", "sentence_bad": f"The {a} the saw {b}."}
    return {**sentences, "field": "syntax_semantics", "linguistics_term": "order", "UID": "order"}


def ewok(a: str, b: str) -> dict[str, Any]:
    kinds = {"Domain": "things", "ContextType": "direct", "ContextDiff": "swap", "TargetDiff": "swap"}
    contexts = {"Context1": f"She sees a {a}, not a {b}.", "Context2": f"She sees a {b}, not a {a}."}
    return {**kinds, **contexts, "Target1": f"There is a {a}.", "Target2": f"There is a {b}."}


def comps(a: str, b: str) -> dict[str, Any]:
    return {"prefix_acceptable": f"A wug is a {a}. A wug", "prefix_unacceptable": f"A wug is a {b}. A wug"} | {
        "property_phrase": f"is like a {a}."
    }


def boxes(a: str, b: str) -> dict[str, Any]:
    return {"input_prefix": f"Box 0 contains the {a}. ", "options": [f"the {a}.", f"the {b}."], "numops": len(a) % 2}


def wug(a: str, b: str) -> dict[str, Any]:
    return {"sentences": f"It is {a}able. {a}ability\tIt is {a}able. {a}ableness", "ratio": (len(a) + len(b)) / 12}


FILES = {
    "full_eval/blimp_filtered/order.jsonl": blimp,
    "full_eval/supplement_filtered/hypernym.jsonl": lambda a, b: dict(list(blimp(a, b).items())[:2]),
    "full_eval/ewok_filtered/things.jsonl": ewok,
    "full_eval/comps/comps_base.jsonl": comps,
    "full_eval/comps/comps_wugs.jsonl": comps,
    "full_eval/comps/comps_wugs_dist-before.jsonl": comps,
    "full_eval/comps/comps_wugs_dist-in-between.jsonl": comps,
    "full_eval/entity_tracking/regular.jsonl": boxes,
    "full_eval/entity_tracking/ambiref.jsonl": boxes,
    "full_eval/wug_adj_nominalization/wug_adj_nominalization.jsonl": wug,
}
BROKEN = "full_eval/wug_past_tense/wug_past_tense.jsonl"
PATHS = {
    "blimp": "zero_shot/causal/blimp/blimp_filtered",
    "blimp_supplement": "zero_shot/causal/blimp/supplement_filtered",
    "ewok": "zero_shot/causal/ewok/ewok_filtered",
    "entity_tracking": "zero_shot/causal/entity_tracking/entity_tracking",
    "wug_adj": "zero_shot/causal/wug_adj/wug_adj_nominalization",
    "comps": "zero_shot/causal/comps/comps",
}
LOAD = {
    "ewok": eval_data.load_ewok,
    "comps": eval_data.load_comps,
    "wug_adj": eval_data.load_wug_adj,
    "entity_tracking": eval_data.load_entity_tracking,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a checkpoint and its evaluation."""
    folder = tmp_path_factory.mktemp("ranking")
    for path, row in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("".join(json.dumps(row(a, b)) + "\n" for a, b in pairs()), encoding="utf-8")
    (folder / BROKEN).parent.mkdir()
    (folder / BROKEN).write_text(json.dumps(wug("a", "b")) + "\n{}\n", encoding="utf-8")
    request = EvaluationRequest.from_folder(save_checkpoint(folder / "chck_1M"), folder / "out")
    suites = (*PATHS, "wug_past")
    evaluate_checkpoint(request, EvaluatorSettings(eval_data=folder, suites=suites, torch_threads=1, worker="test"))
    return folder


def results(folder: Path) -> dict[str, SuiteResult]:
    report = EvaluationReport.from_json((folder / "out" / "report.json").read_bytes())
    return {suite.suite: suite for suite in report.suites}


def test_every_suite_says_where_the_pipeline_would_have_put_it(folder: Path) -> None:
    by_name = results(folder)
    assert {name: suite.results_path for name, suite in by_name.items() if suite.status == "ok"} == PATHS
    for name in PATHS:
        names = {path.name for path in (folder / "out" / name).iterdir()}
        assert {"predictions.json", "best_temperature_report.txt"} <= names


def test_a_broken_file_fails_its_suite_alone(folder: Path) -> None:
    broken = results(folder)["wug_past"]
    assert (broken.status, broken.results_path) == ("failed", None)
    assert "wug_past_tense.jsonl, line 2: found sentences = None" in (broken.reason or "")


@pytest.mark.parametrize("suite", LOAD)
def test_predictions_are_those_of_scoring_every_sentence_alone(folder: Path, suite: str) -> None:
    items = LOAD[suite](folder).items
    model = AutoModelForCausalLM.from_pretrained(folder / "chck_1M").eval()
    scores = brute_force(model, PreTrainedTokenizerFast.from_pretrained(folder / "chck_1M"), items)
    best = [item.candidates[chosen(row)] for item, row in zip(items, scores, strict=True)]
    document = json.loads((folder / "out" / suite / "predictions.json").read_text(encoding="utf-8"))
    rows = [row for paradigm in document.values() for row in paradigm["predictions"]]
    by_paradigm = sorted(zip(items, best, strict=True), key=lambda pair: list(document).index(pair[0].uid))
    assert [row["pred"] for row in rows] == [c.text if suite == "comps" else c.completion for _, c in by_paradigm]


def test_every_number_has_an_interval_that_holds_it(folder: Path) -> None:
    for name, suite in results(folder).items():
        for key, measure in suite.measures.items():
            assert measure.low <= measure.value <= measure.high, (name, key)
        if suite.status == "ok" and name != "wug_adj":
            assert suite.measures["accuracy"].low < suite.measures["accuracy"].high, name
