"""The language-model judge on a GPU: 16 bits against 32, batch shapes, and running out of memory.

Every test runs on the CPU too, on the same small models, so that its own code is known to work where there is no GPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fabula_proto import Story, Verdict, VerdictStatus
from services.teacher.judges.base import Asked, judge_stories
from services.teacher.judges.transformers_judge import TransformersJudge
from tests.teacher_models import PAPER, TEXTS
from tests.tiny_models import load_tiny, make_tiny_llama

# A criterion's mean, in levels, at temperature 1. docs/teacher.md promises the first two.
NEAR_16 = 0.1  # bfloat16 against float32, and bfloat16 against itself in a batch of another shape
NEAR_32 = 1e-3  # float32 in a batch of another shape, and float32 on a GPU against a CPU
STORIES = tuple(Story(id=str(i), text=f"{text} Then {i} birds sang." * (1 + i % 2)) for i, text in enumerate(TEXTS * 2))


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU that PyTorch can use; torch.cuda.is_available() is False here")
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("gpu") / "llama")


def judge_on(folder: Path, device: str, dtype: str) -> TransformersJudge:
    return TransformersJudge(load_tiny(folder, dtype=dtype, device=device), PAPER)


def farthest(ours: Sequence[Verdict], theirs: Sequence[Verdict]) -> float:
    """The greatest difference of a criterion's mean, in levels."""
    pairs = [(a.criteria, b.criteria) for a, b in zip(ours, theirs, strict=True)]
    return max(abs(a[name].mean - b[name].mean) for a, b in pairs if a and b for name in a)


def test_16_bits_judge_as_32_do(folder: Path, device: str) -> None:
    precise, coarse = (judge_on(folder, device, dtype) for dtype in ("float32", "bfloat16"))
    assert "+bfloat16" in coarse.identity.revision
    verdicts = judge_stories(coarse, STORIES)
    assert {v.status for v in verdicts} == {VerdictStatus.OK}
    difference = farthest(verdicts, judge_stories(precise, STORIES))
    assert 0.0 < difference < NEAR_16


def test_a_gpu_judges_as_a_cpu_does(folder: Path, device: str) -> None:
    expected = judge_stories(judge_on(folder, "cpu", "float32"), STORIES)
    assert farthest(judge_stories(judge_on(folder, device, "float32"), STORIES), expected) < NEAR_32


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", NEAR_32), ("bfloat16", NEAR_16)])
def test_the_shape_of_the_batch_hardly_matters(folder: Path, device: str, dtype: str, tolerance: float) -> None:
    judge = judge_on(folder, device, dtype)
    together = judge_stories(judge, STORIES)
    alone = [judge_stories(judge, [story])[0] for story in STORIES]
    assert farthest(together, alone) < tolerance


def test_out_of_memory_halves_the_batch(folder: Path, device: str, caplog: pytest.LogCaptureFixture) -> None:
    loaded = load_tiny(folder, dtype="float32", device=device)
    judge = TransformersJudge(loaded, PAPER)
    count = 256 if device == "cuda" else 8  # large enough that a GPU's allocator does not round the difference away
    prepared = [judge.prepare(Story(id=str(i), text=TEXTS[1])) for i in range(count)]
    asked = [item for item in prepared if isinstance(item, Asked)]
    expected = judge.judge(asked)
    with gpu_for_half(judge, asked) if device == "cuda" else room_for_half(loaded.model, count):
        verdicts = judge.judge(asked)
    assert f"out of memory with {count} stories" in caplog.text
    assert {v.status for v in verdicts} == {VerdictStatus.OK}
    assert farthest(verdicts, expected) < NEAR_32


@contextmanager
def room_for_half(model: torch.nn.Module, count: int) -> Iterator[None]:
    """Let `model` run out of memory with more than half of `count` stories."""

    def check(_model: object, _args: object, kwargs: dict[str, torch.Tensor]) -> None:
        if len(kwargs["input_ids"]) > count // 2:
            raise torch.OutOfMemoryError("there is room for half of them")

    hook = model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def gpu_for_half(judge: TransformersJudge, asked: Sequence[Asked]) -> Iterator[None]:
    """Leave this process as much of the GPU's memory as half of `asked` takes, and less than all of it takes."""

    def judged(items: Sequence[Asked]) -> tuple[int, int]:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        judge.judge(items)
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()

    needed, _ = judged(asked)
    _, enough = judged(asked[: len(asked) // 2])
    assert enough < needed, f"half of the batch reserves {enough} bytes, all of it needs {needed}: take more stories"
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((needed + enough) / 2 / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
