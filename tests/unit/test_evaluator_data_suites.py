"""Data of EWoK, COMPS and the wug suites: the pipeline's items, layouts, and what is said of what cannot be used."""

import base64
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.evaluator.adapters import eval_data
from services.evaluator.adapters.eval_data import find, require
from services.evaluator.errors import BadDataError, MissingDataError
from services.evaluator.items import ItemSet
from tests.evaluator_helpers import SHARED

EWOK = {
    "Domain": "spatial-relations",
    "ContextType": "direct",
    "ContextDiff": "negation",
    "TargetDiff": "concept swap",
    "Context1": "The cat is in the box.",
    "Context2": "The cat is not in the box. ",
    "Target1": "The box holds the cat.",
    "Target2": "The box is empty.",
}
COMPS = {"prefix_acceptable": "a robin", "prefix_unacceptable": "a trout", "property_phrase": "has wings."}
WUG = {"sentences": "Today I spling. Yesterday I splung\tToday I spling. Yesterday I splinged", "ratio": 0.25}
COMPS_FILES = ("comps_base", "comps_wugs", "comps_wugs_dist-before", "comps_wugs_dist-in-between")
# ewok_fast/d.jsonl with one row of domain d, as `zip -P BabyLM2025` packs it.
ENCRYPTED = (
    "UEsDBBQACwAIAIoudl1uBWuEdQAAALAAAAARAAAAZXdva19mYXN0L2QuanNvbmx4qIsSUvBvBSBCYjQMNhqoCTBElr+UoexDydL1tG4sBI5Ape"
    "RGCx5GByN3G0Utdg8rjVwIO/AAzZZBUGsJ2vXfuPWNuRiM6RJFzT1+iBoshLykpTUMxTftXIKk02pkRqR9MsCDQmhMR5aAlh4+vIJ7BkQD0YtQ"
    "SwcIbgVrhHUAAACwAAAAUEsBAh4DFAALAAgAii52XW4Fa4R1AAAAsAAAABEAAAAAAAAAAQAAAKSBAAAAAGV3b2tfZmFzdC9kLmpzb25sUEsFBg"
    "AAAAABAAEAPwAAALQAAAAAAA=="
)

Load = Callable[[Path], ItemSet]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_comps(folder: Path, *stems: str) -> Path:
    for stem in stems:
        write(folder / f"{stem}.jsonl", COMPS)
    return folder


def texts(items: ItemSet) -> list[list[tuple[str, str]]]:
    return [[(c.context, c.completion) for c in item.candidates] for item in items.items]


@pytest.mark.parametrize("below", ["fast_eval/ewok_fast", "full_eval/ewok_filtered", "evaluation_data/full_eval/ewok"])
def test_ewok_asks_for_either_target_after_the_first_context(tmp_path: Path, below: str) -> None:
    write(tmp_path / below / "spatial-relations.jsonl", EWOK)
    items = eval_data.load_ewok(tmp_path)
    context = EWOK["Context1"]
    assert texts(items) == [[(context, " The box holds the cat."), (context, " The box is empty.")]]
    assert items.items[0].uid == "spatial-relations"
    assert items.items[0].groups == (
        ("context_type", "direct"),
        ("context_contrast", "negation"),
        ("target_contrast", "concept swap"),
    )


def test_comps_asks_for_one_property_after_either_subject(tmp_path: Path) -> None:
    write_comps(tmp_path / "full_eval" / "comps", *COMPS_FILES)
    items = eval_data.load_comps(tmp_path)
    assert texts(items) == [[("a robin ", "has wings."), ("a trout ", "has wings.")]] * 4
    assert [item.uid for item in items.items] == ["base", "wugs", "wugs_dist_before", "wugs_dist_in_between"]


def test_comps_without_one_of_its_files_is_not_averaged(tmp_path: Path) -> None:
    write_comps(tmp_path / "comps", *COMPS_FILES[:2], "comps_notes")
    with pytest.raises(
        MissingDataError, match=r"lacks comps_wugs_dist-before\.jsonl, comps_wugs_dist-in-between\.jsonl"
    ):
        eval_data.load_comps(tmp_path)


@pytest.mark.parametrize(
    ("load", "name", "uid"),
    [
        (eval_data.load_wug_adj, "wug_adj_nominalization", "wug_adj"),
        (eval_data.load_wug_past, "wug_past_tense", "wug_past"),
    ],
)
def test_wug_items_carry_what_people_chose(tmp_path: Path, load: Load, name: str, uid: str) -> None:
    write(tmp_path / "fast_eval" / name / f"{name}.jsonl", WUG, {**WUG, "ratio": 1})
    items = load(tmp_path)
    assert texts(items)[0] == [("", sentence) for sentence in WUG["sentences"].split("\t")]  # type: ignore[attr-defined]
    assert [(item.uid, item.rating) for item in items.items] == [(uid, 0.25), (uid, 1.0)]


def test_the_ewok_archive_is_opened_with_its_own_password_and_not_unpacked(tmp_path: Path) -> None:
    write(tmp_path / "fast_eval" / "blimp_fast" / "x.jsonl", {"sentence_good": "a b", "sentence_bad": "b a"})
    archive = tmp_path / "ewok_fast.zip"
    archive.write_bytes(base64.b64decode(ENCRYPTED))
    before = sorted(tmp_path.rglob("*"))
    items = eval_data.load_ewok(tmp_path / "fast_eval")
    assert (items.source, [item.uid for item in items.items]) == (str(archive), ["d"])
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_with_another_password_is_named(tmp_path: Path) -> None:
    packed = base64.b64decode(ENCRYPTED)
    assert packed.count(b"ewok_fast/d.jsonl") == 2
    archive = tmp_path / "entity_tracking_fast.zip"
    archive.write_bytes(packed.replace(b"ewok_fast/d.jsonl", b"box/regular.jsonl"))
    with pytest.raises(BadDataError, match=r"Bad password .*expected a zip archive with the password babylm"):
        eval_data.load_entity_tracking(tmp_path)


def test_what_macos_leaves_in_an_archive_is_passed_over(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ewok_fast.zip", "w") as archive:
        archive.writestr("__MACOSX/ewok_fast/._a.jsonl", b"\0\5\26\7")
        archive.writestr("ewok_fast/a.jsonl", json.dumps(EWOK))
    assert len(eval_data.load_ewok(tmp_path).items) == 1


LOADERS: dict[str, tuple[Load, str, dict[str, Any]]] = {
    "ewok": (eval_data.load_ewok, "ewok_fast/a.jsonl", EWOK),
    "comps": (eval_data.load_comps, "comps/comps_base.jsonl", COMPS),
    "wug_adj": (eval_data.load_wug_adj, "wug_adj_nominalization/a.jsonl", WUG),
    "wug_past": (eval_data.load_wug_past, "wug_past_tense/a.jsonl", WUG),
}


@pytest.mark.parametrize("suite", LOADERS)
@pytest.mark.parametrize(
    ("text", "says"),
    [("", "found an empty file"), ("{nonsense\n", "line 1: found {nonsense; expected a JSON object")],
)
def test_a_file_that_is_empty_or_no_json_is_named(tmp_path: Path, suite: str, text: str, says: str) -> None:
    load, path, _ = LOADERS[suite]
    write(tmp_path / path).write_text(text, encoding="utf-8")
    with pytest.raises(BadDataError) as caught:
        load(tmp_path)
    assert Path(path).name in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("suite", "change", "says"),
    [
        ("ewok", {"Target2": ""}, "Target2 = ''"),
        ("ewok", {"ContextType": None}, "ContextType = None"),
        ("comps", {"property_phrase": 7}, "property_phrase = 7"),
        ("wug_adj", {"sentences": "only one"}, "sentences = 'only one'; expected two or more sentences with tabs"),
        ("wug_past", {"sentences": "one\t "}, "two or more sentences with tabs"),
        ("wug_past", {"ratio": "most"}, "ratio = 'most'; expected a number"),
        ("wug_adj", {"ratio": float("nan")}, "ratio = nan; expected a number"),
        ("wug_adj", {"ratio": True}, "ratio = True; expected a number"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, suite: str, change: dict[str, Any], says: str) -> None:
    load, path, row = LOADERS[suite]
    write(tmp_path / path, row, {**row, **change})
    with pytest.raises(BadDataError) as caught:
        load(tmp_path)
    assert f"{Path(path).name}, line 2: found" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("suite", "says"),
    [
        ("ewok", "agree to its terms at https://huggingface.co/datasets/ewok-core/ewok-core-1.0"),
        ("comps", "comps_base.jsonl, comps_wugs.jsonl"),
        ("wug_past", "what it needs is wug_past_tense.jsonl"),
        ("reading", "has no reading/reading_data.csv"),
        ("aoa", "has no cdi_childes/cdi_childes.json or aoa/cdi_childes.json"),
        ("glue", "<task>.train.jsonl and <task>.valid.jsonl"),
    ],
)
def test_missing_data_say_which_file_and_where_it_is_from(tmp_path: Path, suite: str, says: str) -> None:
    write(tmp_path / "fast_eval" / "wug_adj_nominalization" / "a.jsonl", WUG)
    for data in (tmp_path, tmp_path / "fast_eval", tmp_path / "fast_eval" / "wug_adj_nominalization"):
        with pytest.raises(MissingDataError) as caught:
            require(data, suite)
        assert says in str(caught.value)
        assert "https://osf.io/ryjfm/" in str(caught.value)
    with pytest.raises(MissingDataError, match=r"no folder of evaluation data was given; give one with --eval-data"):
        require(None, suite)


def test_files_and_folders_of_the_other_suites_are_found(tmp_path: Path) -> None:
    for path in ("fast_eval/reading/reading_data.csv", "full_eval/aoa/cdi_childes.json"):
        write(tmp_path / path)
        assert find(tmp_path, Path(path).parts[1]) == tmp_path / path
    assert (
        find(tmp_path / "fast_eval" / "reading", "reading") == tmp_path / "fast_eval" / "reading" / "reading_data.csv"
    )
    write(tmp_path / "full_eval" / "glue_filtered" / "rte.train.jsonl")
    assert require(tmp_path, "glue") == tmp_path / "full_eval" / "glue_filtered"
    assert require(tmp_path / "full_eval" / "glue_filtered", "glue") == tmp_path / "full_eval" / "glue_filtered"


@pytest.mark.parametrize(("suite", "row"), [("ewok", EWOK), ("comps", COMPS)])
def test_a_folder_of_any_name_is_known_by_its_first_row(tmp_path: Path, suite: str, row: dict[str, Any]) -> None:
    write(tmp_path / "mine" / "comps_base.jsonl", row)
    assert find(tmp_path / "mine", suite) == tmp_path / "mine"
    assert find(tmp_path / "mine", "blimp") is None


@pytest.mark.skipif(not (SHARED / "eval").is_dir(), reason=f"the BabyLM evaluation data are not in {SHARED / 'eval'}")
def test_every_suite_of_the_babylm_data_at_hand_is_found() -> None:
    names = {suite: find(SHARED / "eval", suite) for suite in ("wug_adj", "reading", "aoa", "glue", "ewok", "comps")}
    assert {suite: path and path.name for suite, path in names.items()} == {
        "wug_adj": "wug_adj_nominalization",
        "reading": "reading_data.csv",
        "aoa": "cdi_childes.json",
        "glue": "glue_filtered",
        "ewok": None,
        "comps": None,
    }
    items = eval_data.load_wug_adj(SHARED / "eval").items
    assert len(items) == 200
    assert {len(item.candidates) for item in items} == {2}
