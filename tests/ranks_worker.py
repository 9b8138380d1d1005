"""What a process does that test_ranks starts beside another.

python -m tests.ranks_worker SCENARIOS FOLDER REDIS_URL [SILENCE_S]
"""

import json
import os
import sys
from pathlib import Path
from typing import cast

import torch
from torch.distributed.tensor import DTensor

from services.student_trainer.ranks import Beat, RankFailedError, Ranks


class UnpicklableError(Exception):
    """Cannot be built from its arguments alone."""

    def __init__(self, value: int, limit: int) -> None:
        super().__init__(f"{value} is more than {limit}")


def talk(ranks: Ranks, folder: Path) -> None:
    """Each way of talking to the others once; what came of it goes to `talk-<rank>.json`."""
    rank = ranks.rank
    told: dict[str, object] = {"share": list(ranks.share(5)), "everywhere": ranks.everywhere(lambda: f"rank {rank}")}
    told["sum"] = ranks.sum(torch.tensor([1.0, rank])).tolist()
    told["any"] = [ranks.any(rank == 1), ranks.any(False)]
    told["rows"] = ranks.gather_rows(torch.full((rank, 2), float(rank))).tolist()

    def work(beat: Beat) -> int:
        beat()
        beat()
        return 7 // (1 - rank)  # the main process's alone is done

    told["on_main"] = ranks.on_main(work)
    both, one, nobody = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(3))
    both.grad = torch.full((2, 2), 1.0 + rank)
    one.grad = torch.ones(2, 2) if rank == 1 else None
    ranks.sum_gradients([both, one, nobody])
    told["gradients"] = [None if p.grad is None else p.grad.tolist() for p in (both, one, nobody)]
    errors = []
    for fails_at, error in ((0, KeyError("k")), (1, ValueError("v")), (1, UnpicklableError(3, 2))):

        def fail(at: int = fails_at, what: Exception = error) -> None:
            if rank == at:
                raise what

        try:
            ranks.everywhere(fail)
        except (KeyError, ValueError, UnpicklableError, RankFailedError) as raised:
            errors.append(repr(raised))
    try:
        ranks.on_main(lambda _: 1 // rank)
    except ZeroDivisionError as raised:
        errors.append(repr(raised))
    told["errors"] = errors
    (folder / f"talk-{rank}.json").write_text(json.dumps(told))


def train(ranks: Ranks, folder: Path) -> None:
    """Pretrain: without dropout; with it, in micro-batches; stopped by the other process after 5 steps; divided."""
    from tests.ranks_settings import go, pretrain_settings  # not imported by processes that only hang

    scenarios = {
        "plain": None,
        "dropout": None,
        "stopped": 5,
        "sharded": None,
        "sharded_stopped": 5,
        "sharded_on": None,
    }
    for name, stop_after in scenarios.items():
        settings = pretrain_settings(name)
        go(folder / name, settings, ranks, stop_after)


def held(divided: torch.nn.Module) -> int:
    """Numbers that this process has of a divided module's weights."""
    return sum(cast(DTensor, parameter).to_local().numel() for parameter in divided.parameters())


def divide(ranks: Ranks, folder: Path) -> None:
    """A policy divided; how much each process holds, and whether what it writes with is the whole, goes to a file."""
    from services.student_trainer.policy import Policy
    from tests.evaluator_helpers import tiny_gpt2

    torch.manual_seed(1)
    policy = Policy.from_student(tiny_gpt2(300), seed=1)
    policy.ranks = ranks
    before = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    numbers = sum(parameter.numel() for parameter in policy.parameters())
    policy.divide()
    with policy.whole() as model:
        same = all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    told = {
        "numbers": numbers,
        "held": held(policy.actor),
        "reference": held(policy.reference),
        "same": same,
        "left": sum(parameter.numel() for parameter in model.parameters()),
    }
    (folder / f"divide-{ranks.rank}.json").write_text(json.dumps(told))


def interact(ranks: Ranks, folder: Path) -> None:
    """Go on with each run in `folder/runs`; what it raised, if anything, is noted."""
    from fabula_proto.streams import Streams
    from services.student_trainer import config, interaction
    from services.student_trainer.run_folder import RunFolder
    from services.student_trainer.story_queue import StoryQueue
    from tests.interaction_helpers import Following

    for path in sorted((folder / "runs").iterdir()):
        run = RunFolder(path)
        stop_at = {"stopped": 3, "unstarted": 0}.get(path.name.removesuffix("_sharded")) if ranks.rank == 1 else None
        with Streams(sys.argv[3]) as streams:
            queue = StoryQueue(streams, run.run)
            start = run.checkpoints / "chck_1k"
            note = "done"
            try:
                settings = config.load(run.config)
                interaction.interact(run, settings, start, queue, Following(stop_at).watcher, ranks)
            except (interaction.TeacherFailedError, interaction.StopRequestedError, config.ConfigError) as error:
                note = f"{type(error).__name__}: {error}"
            (folder / f"{path.name}-{ranks.rank}.txt").write_text(note)


def die(ranks: Ranks, folder: Path) -> None:
    """Process 1 is gone without a word after five steps of pretraining."""
    from tests.ranks_settings import go, pretrain_settings

    go(folder / "died", pretrain_settings("plain"), ranks, stop_after=5, stop=lambda: os._exit(9))


def die_sharded(ranks: Ranks, folder: Path) -> None:
    """Process 1 is gone without a word in the midst of a forward pass of a divided student."""
    from tests.ranks_settings import go, pretrain_settings

    _die_once_there_is(folder / "died_sharded" / "checkpoints", ranks)
    go(folder / "died_sharded", pretrain_settings("sharded"), ranks)


def die_interacting(ranks: Ranks, folder: Path) -> None:
    """The same in interaction, after the first checkpoint of the one run in `folder/runs`."""
    _die_once_there_is(folder / "runs" / "ppo_sharded" / "checkpoints" / "chck_1k_rl_20", ranks)
    interact(ranks, folder)


def _die_once_there_is(path: Path, ranks: Ranks) -> None:
    if ranks.rank == 1:
        torch.nn.modules.module.register_module_forward_hook(lambda *_: os._exit(9) if path.exists() else None)


def hang(ranks: Ranks, folder: Path) -> None:
    """Process 1 never comes, until it is told by a closed pipe."""
    if ranks.rank == 1:
        sys.stdin.read()
        return
    ranks.everywhere(lambda: None)


if __name__ == "__main__":
    scenarios, place = sys.argv[1].split(","), Path(sys.argv[2])
    torch.set_num_threads(1)
    mine = Ranks.from_environment(silence_s=float(sys.argv[4]) if len(sys.argv) > 4 else 60.0)
    for scenario in scenarios:
        known = {"talk": talk, "train": train, "divide": divide, "interact": interact, "hang": hang}
        known |= {"die": die, "die_sharded": die_sharded, "die_interacting": die_interacting}
        known[scenario](mine, place)
    mine.close()
