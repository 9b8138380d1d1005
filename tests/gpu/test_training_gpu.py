"""Learning on a GPU in bfloat16, from pretraining to updates; every test runs on the CPU too."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from services.student_trainer import checkpoints
from services.student_trainer.interaction import StopRequestedError
from services.student_trainer.ranks import Ranks
from tests import ranks_settings
from tests.interaction_helpers import Following, go
from tests.trainer_helpers import make_run, mixed_settings, teacher_thread, tiny_settings

ONE_UPDATE = 4 + 18  # words


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_run_in_bfloat16_is_stopped_and_goes_on(device: torch.device, redis_url: str, tmp_path: Path) -> None:
    """Stories by CUDA graphs, a step ahead; corpus batches in between."""
    settings, ranks = mixed_settings(dtype="bfloat16", cuda_graph=True, lag=1), Ranks(device=device)
    folder, start = make_run(tmp_path / "run", settings)
    first, then = Following(stop_after_updates=1), Following()
    with teacher_thread(redis_url):
        with pytest.raises(StopRequestedError):
            go(redis_url, folder, start, settings, first, ranks)
        final = go(redis_url, folder, start, settings, then, ranks)
    assert [line.step for line in first.lines + then.lines] == list(range(1 + len(then.lines)))
    assert then.lines
    before, after = (load_file(path / "model.safetensors") for path in (start, final))
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert all(bool(tensor.isfinite().all()) for tensor in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_an_update_in_bfloat16_is_near_to_one_in_float32(device: torch.device, redis_url: str, tmp_path: Path) -> None:
    lines = {}
    for dtype in ("float32", "bfloat16"):
        settings, following = tiny_settings(dtype=dtype, word_budget=ONE_UPDATE), Following()
        folder, start = make_run(tmp_path / dtype, settings)
        with teacher_thread(redis_url):
            go(redis_url, folder, start, settings, following, Ranks(device=device))
        (lines[dtype],) = following.lines
    precise, coarse = lines["float32"], lines["bfloat16"]
    assert coarse.score_mean == precise.score_mean  # what is sampled stays in fp32
    assert coarse.ratio_first_pass == 1.0
    assert coarse.gradient_norm != precise.gradient_norm
    for name in ("policy_loss", "value_loss", "entropy_mean", "gradient_norm"):
        assert getattr(coarse, name) == pytest.approx(getattr(precise, name), rel=0.05, abs=0.005), name


def test_pretraining_in_bfloat16_is_near_to_float32(device: torch.device, tmp_path: Path) -> None:
    """In bfloat16 with a stop in between."""
    precise, ranks = (
        ranks_settings.pretrain_settings("plain"),
        Ranks(device=device),
    )  # dropout depends on the dtype there
    coarse = precise.model_copy(update={"pretrain": precise.pretrain.model_copy(update={"dtype": "bfloat16"})})
    ranks_settings.go(tmp_path / "float32", precise, ranks)
    assert ranks_settings.go(tmp_path / "bfloat16", coarse, ranks, stop_after=5) is None
    final = ranks_settings.go(tmp_path / "bfloat16", coarse, ranks)
    assert final is not None
    checkpoints.verify(final)
    assert {tensor.dtype for tensor in load_file(final / "model.safetensors").values()} == {torch.float32}
    ours, theirs = (losses(tmp_path / dtype) for dtype in ("bfloat16", "float32"))
    assert len(ours) == len(theirs) > 8
    assert ours == pytest.approx(theirs, abs=0.05)
    assert ours != theirs
    assert ours[-1] < ours[0] - 0.1


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
