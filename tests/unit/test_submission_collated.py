"""The leaderboard's file beside that of the pipeline's own collate_preds.py, from the same results folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.submission import made_up
from tests.submission.record import RECORDED


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every string, number and empty collection by its place, in order."""
    if isinstance(value, dict | list) and value:
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, f"{path}/{key}")
    else:
        yield path, value


def test_our_submission_is_the_one_that_the_pipelines_script_makes_of_our_results(tmp_path: Path) -> None:
    """Recorded by tests/submission/record.py with babylm/evaluation-pipeline-2025 at bf55c11, unchanged but for the
    sizes that it checks; its scores are computed from the predictions and the data, ours are those of the reports."""
    data = made_up.write_data(tmp_path / "fast_eval")
    written = made_up.write_submission(made_up.write_run(tmp_path / "tiny", data), tmp_path)
    ours, recorded = (dict(leaves(json.loads(path.read_text(encoding="utf-8")))) for path in (written, RECORDED))
    assert list(ours) == list(recorded)  # its order, too
    numbers = [place for place, value in recorded.items() if isinstance(value, float)]
    for side in (ours, recorded):
        side["numbers"] = [side.pop(place) for place in numbers]
    assert ours.pop("numbers") == pytest.approx(recorded.pop("numbers"), rel=1e-6, nan_ok=True)
    assert ours == recorded
