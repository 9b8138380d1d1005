"""Two processes on one machine (gloo): what they tell each other, and a run that they share."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from services.student_trainer import checkpoints
from services.student_trainer.pretrain_state import resume_folder
from services.student_trainer.ranks import Ranks
from tests.ranks_helpers import outputs, processes
from tests.ranks_settings import go, pretrain_settings

pytestmark = pytest.mark.xdist_group("ranks")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind that talked and trained."""
    folder = tmp_path_factory.mktemp("two")
    with processes(2, "tests.ranks_worker", "talk,train,die", str(folder)) as started:
        results = outputs(started)
    (folder / "status.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs by one process."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("alone")
    for name in ("plain", "dropout"):
        go(folder / name, pretrain_settings(name), Ranks())
    return folder


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "chck_1500" / "model.safetensors")


def check_equal(one: Path, other: Path) -> None:
    assert losses(one) == pytest.approx(losses(other), abs=1e-5)
    assert len(losses(one)) > 8
    ours, theirs = weights(one), weights(other)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs)
    for name in ("chck_800", "chck_1500"):
        checkpoints.verify(one / "checkpoints" / name)


def test_processes_talk(two: Path) -> None:
    told: list[dict[str, Any]] = [json.loads((two / f"talk-{rank}.json").read_text()) for rank in range(2)]
    assert [t.pop("share") for t in told] == [[0, 1], [2, 3, 4]]
    errors = [t.pop("errors") for t in told]
    assert errors[0][:2] == errors[1][:2] == ["KeyError('k')", "ValueError('v')"]
    assert errors[0][2] == "RankFailedError('process 1 failed: UnpicklableError: 3 is more than 2')"
    assert errors[1][2] == "UnpicklableError('3 is more than 2')"
    assert errors[0][3] == errors[1][3]
    assert "ZeroDivisionError" in errors[0][3]
    assert told[0] == told[1]
    assert told[0] == {
        "everywhere": ["rank 0", "rank 1"],
        "sum": [2.0, 1.0],
        "any": [True, False],
        "rows": [[1.0, 1.0]],
        "on_main": 7,
        "gradients": [[[3.0, 3.0], [3.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]], None],
    }


def test_one_process_alone_talks_to_itself() -> None:
    ranks = Ranks()
    assert ranks.main
    assert list(ranks.share(3)) == [0, 1, 2]
    assert ranks.everywhere(lambda: 7) == [7]
    assert ranks.on_main(lambda _: 7) == 7
    assert ranks.any(True)
    assert not ranks.any(False)


def test_two_processes_pretrain_as_one(two: Path, alone: Path) -> None:
    check_equal(two / "plain", alone / "plain")


def test_two_processes_with_one_micro_batch_each_give_the_bits_of_one_with_both(two: Path, alone: Path) -> None:
    ours, theirs = (folder / "dropout" / "checkpoints" / "chck_1500" / "model.safetensors" for folder in (two, alone))
    assert ours.read_bytes() == theirs.read_bytes()


def test_one_process_goes_on_where_two_were_stopped(two: Path, alone: Path) -> None:
    folder = two / "stopped"
    (point,) = resume_folder(folder).iterdir()
    assert point.name == "00000005"
    go(folder, pretrain_settings("plain"), Ranks())
    check_equal(folder, alone / "plain")


def test_a_process_that_dies_is_noticed_at_once(two: Path) -> None:
    (status, _, error), (lost, _, _) = json.loads((two / "status.json").read_text())
    assert (status, lost) == (1, 9), error
    assert "process 0 lost touch with the others: one died or hangs" in error


def test_a_process_that_hangs_is_given_up(tmp_path: Path) -> None:
    with processes(2, "tests.ranks_worker", "hang", str(tmp_path), "15") as started:
        status, _, error = outputs(started[:1])[0]
        assert started[1].poll() is None
    assert status == 1
    assert "process 0 lost touch with the others: one died or hangs" in error
