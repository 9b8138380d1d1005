"""Where a suite's data lies in a folder of the BabyLM 2025 `evaluation_data` layout. Nothing is read but first rows.

Accepted as `folder`: one that contains `fast_eval` or `full_eval` (the fast one is taken where both have the suite),
one of these two themselves, a suite's own folder by its name or by what its first row says. EWoK and entity tracking
may also be the archives `ewok_fast.zip` and `entity_tracking_fast.zip` in or beside the folder.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.evaluator.adapters.eval_data.hub import local_folder
from services.evaluator.errors import BadDataError, MissingDataError

GET_IT = "the BabyLM 2025 evaluation_data is at https://osf.io/ryjfm/"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one suite's data is: folders or files below a split, in order of preference.

    `wanted` says what is in it; `terms` what else one must know to get it. `password` opens the archive
    `<name>.zip` that may stand for a folder; it is public and keeps the items out of training crawls.
    """

    names: tuple[str, ...]
    wanted: str
    terms: str = ""
    password: bytes | None = None


PLACES: Mapping[str, Place] = {
    "blimp": Place(("blimp_fast", "blimp_filtered", "blimp"), "one .jsonl file a paradigm"),
    "blimp_supplement": Place(("supplement_fast", "supplement_filtered", "supplement"), "one .jsonl file a paradigm"),
    "ewok": Place(
        ("ewok_fast", "ewok_filtered", "ewok"),
        "one .jsonl file a domain",
        "ewok_fast.zip is in it and may stay zipped; the whole EWoK is gated: agree to its terms at "
        "https://huggingface.co/datasets/ewok-core/ewok-core-1.0 and make ewok_filtered with the BabyLM 2025 "
        "pipeline's evaluation_pipeline/ewok/dl_and_filter.py; its authors ask that it stay out of training data",
        b"BabyLM2025",
    ),
    "entity_tracking": Place(
        ("entity_tracking_fast", "entity_tracking"),
        "regular.jsonl or ambiref.jsonl or move_contents.jsonl",
        "entity_tracking_fast.zip is in it and is best left zipped",
        b"babylm",
    ),
    "comps": Place(("comps",), "comps_base.jsonl, comps_wugs.jsonl and its two distractor files", "in full_eval only"),
    "wug_adj": Place(("wug_adj_nominalization",), "wug_adj_nominalization.jsonl"),
    "wug_past": Place(("wug_past_tense",), "wug_past_tense.jsonl"),
    "reading": Place(("reading/reading_data.csv",), "reading_data.csv"),
    "aoa": Place(
        ("cdi_childes/cdi_childes.json", "aoa/cdi_childes.json"), "contexts of CHILDES words", "in full_eval only"
    ),
    "glue": Place(("glue_filtered", "glue"), "<task>.train.jsonl and <task>.valid.jsonl", "in full_eval only"),
}
_MARKS = {"input_prefix": "entity_tracking", "Target1": "ewok", "property_phrase": "comps"}


def find(folder: Path, suite: str) -> Path | None:
    """The suite's folder, or its one file (`reading`: the CSV; `aoa`: cdi_childes.json), or its archive; else none."""
    place = PLACES[suite]
    for root in _roots(folder):
        for name in place.names:
            if (root / name).exists():
                return root / name
    return _itself(folder, suite) or _archive(folder, place)


def require(data: Path | str | None, suite: str) -> Path:
    """As `find`, for evaluation data that must hold the suite.

    Args:
        data: A folder, or `hub:OWNER/NAME[@REVISION]`, which is fetched.
        suite: Key of PLACES.

    Raises:
        MissingDataError: no data are given, or they hold none for this suite; says what and where to get it.
        BadDataError: the folder is none, or holds no evaluation data at all.
        EvaluatorError: the Hub does not give the data.
    """
    if data is None:
        raise MissingDataError(f"no folder of evaluation data was given; give one with --eval-data; {_needs(suite)}")
    folder = local_folder(data)
    check_folder(folder)
    found = find(folder, suite)
    if found is None:
        raise MissingDataError(f"{folder} has no {' or '.join(PLACES[suite].names)}; {_needs(suite)}")
    return found


def check_folder(folder: Path) -> None:
    """Make sure that the folder holds evaluation data of at least one suite; files are not read yet.

    Raises:
        BadDataError: it holds none.
    """
    if not folder.is_dir():
        raise BadDataError(str(folder), None, "no folder", "a folder of evaluation data", f"check the path; {GET_IT}")
    if all(find(folder, suite) is None for suite in PLACES):
        names = sorted(p.name for p in folder.iterdir())[:6]
        expected = "fast_eval, full_eval, blimp_fast, supplement_fast, entity_tracking_fast or BLiMP's JSONL files"
        raise BadDataError(
            str(folder), None, f"{names}", expected, f"give the folder that contains them, whole; {GET_IT}"
        )


def _needs(suite: str) -> str:
    place = PLACES[suite]
    return f"what it needs is {place.wanted}: {GET_IT}{f' ({place.terms})' if place.terms else ''}"


def _roots(folder: Path) -> list[Path]:
    nested = folder / "evaluation_data"
    return [folder, *(base / split for base in (folder, nested) for split in ("fast_eval", "full_eval"))]


def _itself(folder: Path, suite: str) -> Path | None:
    """`folder` where it is the suite's own, by its name, or by its first row where its name says nothing."""
    own = folder.resolve()
    named = {name.split("/")[0]: (key, name) for key, place in PLACES.items() for name in place.names}
    if own.name in named:
        key, name = named[own.name]
        is_it = key == suite and (own.parent / name).exists() and any(own.iterdir())
        return (folder if "/" not in name else folder / Path(name).name) if is_it else None
    files = sorted(folder.glob("*.jsonl"))
    return folder if files and _suite_of(files[0]) == suite else None


def _suite_of(file: Path) -> str | None:
    """What the first row of a file says; none for whatever is no JSON object or of no known suite."""
    try:
        with file.open(encoding="utf-8") as opened:
            row = json.loads(next((line for line in opened if line.strip()), "null"))
    except (OSError, ValueError):
        return None
    if not isinstance(row, dict):
        return None
    if "sentence_good" in row:
        return "blimp" if "field" in row or "UID" in row else "blimp_supplement"
    return next((suite for mark, suite in _MARKS.items() if mark in row), None)


def _archive(folder: Path, place: Place) -> Path | None:
    """The suite's archive in the folder, in one of its splits, or one level up."""
    if place.password is None:
        return None
    archives = [root / f"{name}.zip" for root in (*_roots(folder), folder.resolve().parent) for name in place.names]
    return next((archive for archive in archives if archive.is_file()), None)
