"""Judging stories of mixed lengths: through the micro-batcher, one by one, and in fixed chunks in order of arrival.

    .venv/bin/python -m bench.batching [--stories 96] [--batch-stories 32] [--batch-tokens 8192] [--rounds 5]

The judge is a tiny Llama with random weights, on the CPU: its verdicts mean nothing, its forward passes are real. Half
of the stories come as one request of the queue, the other half one by one, as over HTTP. Prints CPU time and
ratios, medians of rounds taken in turn. Machines are noisy: quote the ratios.
"""

import argparse
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fabula_proto import Story, TeacherIdentity, Verdict
from services.student_trainer.grammar import generate_documents
from services.teacher.batcher import Batcher, BatchLimits
from services.teacher.judges.base import Asked, Judge
from services.teacher.judges.build import build_judge
from services.teacher.rubric import load_rubric
from services.teacher.spec import TeacherSpec
from tests.tiny_models import make_tiny_llama


class Counted:
    """A judge that counts the padded tokens it is given."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.padded_tokens = 0

    @property
    def identity(self) -> TeacherIdentity:
        return self._judge.identity

    @property
    def lanes(self) -> int:
        return self._judge.lanes

    def prepare(self, story: Story) -> Asked | Verdict:
        return self._judge.prepare(story)

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        self.padded_tokens += len(asked) * max(item.tokens for item in asked)
        return self._judge.judge(asked)

    def close(self) -> None:
        self._judge.close()


@dataclass(frozen=True)
class Measured:
    """One way through all stories."""

    seconds: float
    padded_tokens: int
    totals: list[float]


def measured(judge: Counted, way: Callable[[], list[Verdict]]) -> Measured:
    """CPU time and padded tokens of one way; totals in the order of the stories."""
    judge.padded_tokens = 0
    start = time.process_time()
    verdicts = way()
    seconds = time.process_time() - start
    return Measured(seconds, judge.padded_tokens, [verdict.total or 0.0 for verdict in verdicts])


def stories_of_mixed_length(judge: Judge, count: int) -> list[Asked]:
    """Made-up prose with log-normal lengths, 60 words in the median; what does not fit into the context is left out."""
    rng = random.Random(1)
    words = " ".join(document.text for document in generate_documents(20_000, seed=1)).split()
    asked: list[Asked] = []
    while len(asked) < count:
        start, length = rng.randrange(len(words) - 1000), min(1000, 1 + int(rng.lognormvariate(4.1, 0.7)))
        item = judge.prepare(Story(id=f"s{len(asked)}", text=" ".join(words[start : start + length])))
        if isinstance(item, Asked):
            asked.append(item)
    return asked


def batched(judge: Judge, asked: Sequence[Asked], limits: BatchLimits) -> list[Verdict]:
    """All stories at once: the first half as one request, each of the others as its own."""
    batcher, half = Batcher(judge, limits), len(asked) // 2
    tickets = [batcher.submit(asked[:half], patient=True), *(batcher.submit([item]) for item in asked[half:])]
    batcher.close()
    return [verdict for ticket in tickets for verdict in ticket.future.result()]


def in_chunks(judge: Judge, asked: Sequence[Asked], size: int) -> list[Verdict]:
    """So many stories at a time, as they came."""
    return [v for start in range(0, len(asked), size) for v in judge.judge(asked[start : start + size])]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("stories", 96), ("batch-stories", 32), ("batch-tokens", 8192), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # that the model is untrained is known
    with tempfile.TemporaryDirectory() as folder:
        model = make_tiny_llama(Path(folder) / "tiny-llama")
        judge = Counted(build_judge(TeacherSpec(judge=f"transformers:{model}", device="cpu"), load_rubric()))
    asked = stories_of_mixed_length(judge, options.stories)
    limits = BatchLimits(options.batch_tokens, options.batch_stories, queued_tokens=10**9)
    ways: dict[str, Callable[[], list[Verdict]]] = {
        "batcher": lambda: batched(judge, asked, limits),
        "one by one": lambda: in_chunks(judge, asked, 1),
        "chunks": lambda: in_chunks(judge, asked, options.batch_stories),
    }
    for way in ways.values():
        way()
    rounds = [{name: measured(judge, way) for name, way in ways.items()} for _ in range(options.rounds)]
    lengths = [item.tokens for item in asked]
    print(f"{len(asked)} stories of {min(lengths)} to {max(lengths)} tokens, median {statistics.median(lengths):.0f}")
    print(f"batches of {limits.batch_stories} stories and {limits.batch_tokens} padded tokens at most")
    print(f"{torch.get_num_threads()} threads, medians of {options.rounds} rounds taken in turn")
    for name in ways:
        seconds = statistics.median(r[name].seconds for r in rounds)
        ratio = statistics.median(r[name].seconds / r["batcher"].seconds for r in rounds)
        padded, fewest = rounds[0][name].padded_tokens, rounds[0]["batcher"].padded_tokens
        print(
            f"{name:10}  {seconds:6.2f} s of CPU = {ratio:.2f} x batcher;  {padded / sum(lengths):.2f} padded a token "
            f"= {padded / fewest:.2f} x batcher"
        )
    first = rounds[0]
    gap = max(abs(a - b) for name in ways for a, b in zip(first[name].totals, first["one by one"].totals, strict=True))
    print(f"largest difference of a total (0-9) between the ways: {gap:.1e}")


if __name__ == "__main__":
    main()
