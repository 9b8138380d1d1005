"""How long an update takes, who waits for whom, and what a million words cost: a model for docs/scaling.md.

    .venv/bin/python -m bench.scaling_model --write 0.025 --learn 0.19 --judge 0.1 [--teachers 1,2,4,8] [--lag 0,1]

`--write`, `--learn` and `--judge` are seconds a story: of one trainer process writing, of one learning, of one
teacher. Take them from your own machines: `bench.learning` gives the first two, `bench.scaling` the third (one over
stories/s).

The model: R ranks write chunks of c stories, each its own, and send each chunk when it is written; K teachers take
chunks in that order, one at a time each. With lag 0 the update begins when the last verdict is there. With lag 1
verdicts may come while the student learns and writes the next batch, so that the slower of the two sides sets the
pace. Not in it: evaluation and checkpoints, which run beside, gradient exchange, and the queue, which the rules judge
of `bench.scaling` bounds.
"""

import argparse
import heapq
from dataclasses import dataclass

PAPER_STORIES = 360  # an update, arXiv 2509.15714
PAPER_UPDATES = 920  # a million words of input at three a story


@dataclass(frozen=True)
class Setup:
    """Seconds a story for each part, and how many share the work."""

    write_s: float
    learn_s: float
    judge_s: float
    teachers: int = 1
    ranks: int = 1
    lag: int = 0
    stories: int = PAPER_STORIES
    chunk: int = 60


@dataclass(frozen=True)
class Update:
    """Seconds of one update in steady state: writing, waiting for verdicts, learning."""

    write_s: float
    wait_s: float
    learn_s: float

    @property
    def total_s(self) -> float:
        """From one update's beginning to the next one's."""
        return self.write_s + self.wait_s + self.learn_s


def update(setup: Setup) -> Update:
    """One update of `setup` in steady state.

    Raises:
        ValueError: a number is not positive, or the stories do not divide into chunks.
    """
    positive = (setup.write_s, setup.learn_s, setup.judge_s, setup.teachers, setup.ranks, setup.stories, setup.chunk)
    if min(positive) <= 0 or setup.lag < 0 or setup.stories % setup.chunk:
        raise ValueError(f"{setup}: every number must be above 0, lag 0 or more, and chunk must divide stories")
    sent = [(1 + number // setup.ranks) * setup.chunk * setup.write_s for number in range(setup.stories // setup.chunk)]
    learn_s = setup.stories * setup.learn_s / setup.ranks
    if setup.lag == 0:
        return Update(sent[-1], _judged(sent, setup) - sent[-1], learn_s)
    own_s = sent[-1] + learn_s
    judged_s = len(sent) * setup.chunk * setup.judge_s / min(setup.teachers, setup.lag * len(sent))
    return Update(sent[-1], max(0.0, judged_s - own_s), learn_s)


def _judged(sent: list[float], setup: Setup) -> float:
    """When the last of the chunks that were sent at `sent` has its verdicts, the earliest free teacher taking each."""
    free = [0.0] * setup.teachers
    for at in sent:
        heapq.heapreplace(free, max(at, free[0]) + setup.chunk * setup.judge_s)
    return max(free)


def main() -> None:
    """Print a line for each combination."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("write", "learn", "judge"):
        parser.add_argument(f"--{name}", type=float, required=True, help="seconds a story")
    for name, default in (("teachers", "1,2,4,8"), ("ranks", "1"), ("lag", "0,1")):
        parser.add_argument(f"--{name}", default=default, help="numbers, with commas between")
    parser.add_argument("--stories", type=int, default=PAPER_STORIES, help="an update")
    parser.add_argument("--chunk", type=int, default=60)
    parser.add_argument("--updates", type=int, default=PAPER_UPDATES)
    parser.add_argument("--teacher-price", type=float, help="of a teacher's machine, an hour")
    parser.add_argument("--rank-price", type=float, help="of a trainer process's machine, an hour")
    options = parser.parse_args()
    priced = options.teacher_price is not None and options.rank_price is not None
    print(f"{options.stories} stories an update, {options.updates} updates")
    print(
        f"{'lag':>4}{'ranks':>6}{'teachers':>9}{'write s':>9}{'wait s':>9}{'learn s':>9}{'update s':>10}{'hours':>8}",
        end="",
    )
    print(f"{'cost':>9}" if priced else "")
    for lag in map(int, options.lag.split(",")):
        for ranks in map(int, options.ranks.split(",")):
            for teachers in map(int, options.teachers.split(",")):
                times = (options.write, options.learn, options.judge)
                found = update(Setup(*times, teachers, ranks, lag, options.stories, options.chunk))
                hours = options.updates * found.total_s / 3600
                print(f"{lag:4}{ranks:6}{teachers:9}{found.write_s:9.1f}{found.wait_s:9.1f}", end="")
                print(f"{found.learn_s:9.1f}{found.total_s:10.1f}{hours:8.1f}", end="")
                if priced:
                    print(f"{hours * (teachers * options.teacher_price + ranks * options.rank_price):9.2f}", end="")
                print()


if __name__ == "__main__":
    main()
