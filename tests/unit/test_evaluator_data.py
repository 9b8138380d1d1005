"""Benchmark folders: layouts that are understood, and what is said of those that are not."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from services.evaluator.adapters.eval_data import load_blimp, load_blimp_supplement, load_entity_tracking
from services.evaluator.errors import BadDataError, MissingDataError
from tests.evaluator_helpers import SHARED

PAIR = {"sentence_good": "The foxes were old.", "sentence_bad": "The foxes was old."}
BLIMP = {**PAIR, "field": "syntax_semantics", "linguistics_term": "binding", "UID": "principle_A", "pair_id": 1}
BOX = {"input_prefix": "Box 0 contains ", "options": ["the key.", "the map."], "numops": 2, "sample_id": 3}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("below", ["fast_eval/blimp_fast", "full_eval/blimp_filtered", "blimp_fast", "."])
def test_blimp_is_found_in_every_layout(tmp_path: Path, below: str) -> None:
    write(tmp_path / below / "principle_A_case_1.jsonl", BLIMP, BLIMP)
    found = load_blimp(tmp_path)
    assert [item.uid for item in found.items] == ["principle_A", "principle_A"]
    assert dict(found.items[0].groups) == {"field": "syntax/semantics", "term": "binding"}
    assert found.items[0].candidates[0].text == PAIR["sentence_good"]
    assert found.source == str((tmp_path / below).resolve()) or found.source == str(tmp_path / below)


def test_the_suite_folder_itself_is_understood(tmp_path: Path) -> None:
    folder = write(tmp_path / "blimp_fast" / "x.jsonl", BLIMP).parent
    assert len(load_blimp(folder).items) == 1
    with pytest.raises(MissingDataError, match="supplement_fast or supplement_filtered"):
        load_blimp_supplement(folder)


def test_a_supplement_files_name_is_its_paradigm(tmp_path: Path) -> None:
    write(tmp_path / "supplement_fast" / "hypernym.jsonl", PAIR)
    write(tmp_path / "supplement_fast" / "turn_taking.jsonl", PAIR)
    assert [item.uid for item in load_blimp_supplement(tmp_path).items] == ["hypernym", "turn_taking"]


def test_the_fast_folder_is_taken_where_both_have_the_suite(tmp_path: Path) -> None:
    write(tmp_path / "full_eval" / "blimp_filtered" / "x.jsonl", BLIMP)
    fast = write(tmp_path / "fast_eval" / "blimp_fast" / "x.jsonl", BLIMP).parent
    assert load_blimp(tmp_path).source == str(fast)
    assert load_blimp(tmp_path / "full_eval").source.endswith("blimp_filtered")


def test_entity_tracking_keeps_split_and_operations(tmp_path: Path) -> None:
    write(tmp_path / "entity_tracking" / "regular.jsonl", BOX)
    write(tmp_path / "entity_tracking" / "ambiref.jsonl", {**BOX, "numops": 0})
    write(tmp_path / "entity_tracking" / "notes.jsonl", {"not": "a split"})
    found = load_entity_tracking(tmp_path)
    assert [item.uid for item in found.items] == ["ambiref_0_ops", "regular_2_ops"]
    assert dict(found.items[1].groups) == {"split": "regular", "ops": "2"}
    assert found.items[1].candidates[0].context == "Box 0 contains "


@pytest.mark.parametrize("beside", [False, True])
def test_the_archive_is_read_in_memory_from_the_folder_or_beside_it(tmp_path: Path, beside: bool) -> None:
    folder = tmp_path / "fast_eval"
    write(folder / "blimp_fast" / "x.jsonl", BLIMP)
    archive = (tmp_path if beside else folder) / "entity_tracking_fast.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("entity_tracking_fast/regular.jsonl", json.dumps(BOX) + "\n")
    before = sorted(tmp_path.rglob("*"))
    found = load_entity_tracking(folder)
    assert (found.source, len(found.items)) == (str(archive), 1)
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", None, "an empty file"),
        ('{"sentence_good": "a b", "sentence_bad": "c d"}\nnot json\n', 2, "found not json; expected a JSON object"),
        ('["a list"]\n', 1, "expected a JSON object"),
        ('{"sentence_good": "a b"}\n', 1, "sentence_bad = None; expected a non-empty string"),
        ('\n{"sentence_good": "a b", "sentence_bad": 3}\n', 2, "sentence_bad = 3"),
        ('{"sentence_good": "a b", "sentence_bad": "  "}\n', 1, "sentence_bad = '  '"),
    ],
)
def test_a_bad_row_is_named_with_file_line_value_and_cure(
    tmp_path: Path, text: str, line: int | None, says: str
) -> None:
    folder = tmp_path / "supplement_fast"
    folder.mkdir()
    (folder / "hypernym.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(BadDataError) as caught:
        load_blimp_supplement(tmp_path)
    assert caught.value.line == line
    assert "hypernym.jsonl" in str(caught.value)
    assert says in str(caught.value)
    assert "fresh copy" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"options": ["one"]}, "options = \\['one'\\]"),
        ({"options": ["a", 3]}, "two or more non-empty strings"),
        ({"numops": "2"}, "numops = '2'"),
        ({"numops": True}, "numops = True"),
        ({"input_prefix": None}, "input_prefix = None"),
    ],
)
def test_a_bad_box_question_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    write(tmp_path / "entity_tracking_fast" / "regular.jsonl", BOX, {**BOX, **change})
    with pytest.raises(BadDataError, match=rf"regular\.jsonl, line 2: found .*{says}"):
        load_entity_tracking(tmp_path)


def test_a_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "blimp_fast"
    folder.mkdir()
    (folder / "x.jsonl").write_bytes(b'{"sentence_good": "\xff"}\n')
    with pytest.raises(BadDataError, match="readable UTF-8 file"):
        load_blimp(tmp_path)


def test_a_folder_without_any_benchmark_is_an_error_not_a_skip(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").touch()
    with pytest.raises(BadDataError, match=r"holiday\.png.*expected fast_eval, full_eval"):
        load_blimp(tmp_path)
    with pytest.raises(BadDataError, match="no folder"):
        load_blimp(tmp_path / "absent")


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "entity_tracking_fast.zip").write_bytes(b"PK nonsense")
    with pytest.raises(BadDataError, match="fresh copy"):
        load_entity_tracking(tmp_path)


@pytest.mark.skipif(not (SHARED / "eval").is_dir(), reason=f"the BabyLM evaluation data is not in {SHARED / 'eval'}")
def test_the_babylm_data_is_read_whole() -> None:
    blimp = load_blimp(SHARED / "eval")
    assert len(blimp.items) == 13_400
    assert len({item.uid for item in blimp.items}) == 67
    assert len({dict(item.groups)["term"] for item in blimp.items}) == 13
    assert len(load_blimp_supplement(SHARED / "eval" / "fast_eval").items) == 250
    boxes = load_entity_tracking(SHARED / "eval" / "fast_eval")  # its archive lies one level up
    assert len(boxes.items) == 3152
    assert {len(item.candidates) for item in boxes.items} == {5}
