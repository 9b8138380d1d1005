"""Everything that interaction needs to go on: weights, value head, optimiser, controller, ledger and cursor."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from services.student_trainer import checkpoints
from services.student_trainer.algorithms import make_algorithm
from services.student_trainer.algorithms.updating import make_optimizer
from services.student_trainer.in_flight import Writer, WrittenStep, to_saved
from services.student_trainer.kl import KLController
from services.student_trainer.learning_settings import KLSettings
from services.student_trainer.ledger import Ledger
from services.student_trainer.policy import Policy, ValueHead
from services.student_trainer.ranks import Ranks
from services.student_trainer.records import rewind_metrics, rewind_stories
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import RunSettings
from services.student_trainer.sharding import load_optimizer_state, whole_optimizer_state, whole_weights
from services.student_trainer.student import load_student


@dataclass(frozen=True)
class Whole:
    """What a divided policy's processes hold together, as an undivided one's has it."""

    model: PreTrainedModel
    value_head: Mapping[str, torch.Tensor] | None
    optimizer: Mapping[str, Any]


@dataclass
class InteractionState:
    """What changes from update to update."""

    start: Path
    policy: Policy
    tokenizer: PreTrainedTokenizerBase
    optimizer: torch.optim.Optimizer
    kl: KLController
    kl_used: float
    ledger: Ledger
    step: int
    milestone: int
    in_flight: list[WrittenStep]

    @contextmanager
    def whole(self) -> Iterator[Whole]:
        """Weights and the optimiser's state, to save. All processes enter, where the policy is divided."""
        policy, head = self.policy, self.policy.value_head
        with policy.whole() as model:
            if policy.divided:
                heads = None if head is None else whole_weights(head)
                yield Whole(model, heads, whole_optimizer_state(policy.actor, self.optimizer))
            else:
                yield Whole(model, None if head is None else head.state_dict(), self.optimizer.state_dict())


def begin_or_resume(
    folder: RunFolder, settings: RunSettings, start: Path, ranks: Ranks | None = None
) -> InteractionState:
    """The state at the furthest point that was saved, or a fresh one on the checkpoint `start`.

    Records of updates past that point are taken back: these updates are done again, with the same result. Of several
    processes each comes to the same state.

    Raises:
        CheckpointError: a checkpoint is damaged, or was written under another algorithm.
    """
    ranks = ranks or Ranks()
    ranks.on_main(lambda _: checkpoints.verify(start))
    saved = ranks.on_main(lambda _: _furthest(folder, start))
    data = None if saved is None else _load(saved, settings)
    policy = _policy(saved, start, settings, data, ranks)
    kl_settings = settings.interact.kl
    state = InteractionState(
        start=start,
        policy=policy,
        tokenizer=AutoTokenizer.from_pretrained(start),
        optimizer=make_optimizer(policy, make_algorithm(settings.interact).settings),
        kl=_controller(kl_settings, kl_settings.coefficient),
        kl_used=kl_settings.coefficient,
        ledger=Ledger(budget=settings.interact.word_budget),
        step=0,
        milestone=0,
        in_flight=[],
    )
    if data is not None:
        _restore(state, data, settings, folder.run)
    ranks.everywhere(lambda: None)  # all have read what the main process may from now on replace
    ranks.on_main(lambda _: _take_back_records(folder, state))
    return state


def _take_back_records(folder: RunFolder, state: InteractionState) -> None:
    rewind_metrics(folder.metrics, state.step)
    rewind_stories(folder.stories, state.step)
    state.ledger.write(folder.ledger)


def save(path: Path, folder: RunFolder, settings: RunSettings, state: InteractionState, whole: Whole) -> Path:
    """Save the state as a checkpoint at `path`; resume points that are behind it are no longer needed."""
    pretraining_words = checkpoints.facts(state.start)["pretraining_words"]
    checkpoints.save(
        path,
        whole.model,
        state.tokenizer,
        state={
            "step": state.step,
            "milestone": state.milestone,
            "kl_coefficient": state.kl.coefficient,
            "ledger": state.ledger.model_dump(),
            "in_flight": [to_saved(written) for written in state.in_flight],
            "algorithm": settings.interact.algorithm,
            "optimizer": whole.optimizer,
            **({} if whole.value_head is None else {"value_head": whole.value_head}),
        },
        facts={
            "run": folder.run,
            "stage": "interact",
            "start": state.start.name,
            "step": state.step,
            "pretraining_words": pretraining_words,
            "interaction_words": state.ledger.spent,
            "seed": settings.seed,
            "processes": state.policy.ranks.world,
        },
    )
    for other in folder.interact_resume.glob("*"):
        if other != path:
            shutil.rmtree(other)
    return path


def save_resume_point(folder: RunFolder, settings: RunSettings, state: InteractionState, whole: Whole) -> Path:
    """Save the state where the next start finds it. The last resume point goes only when this one is whole."""
    return save(folder.interact_resume / str(state.step), folder, settings, state, whole)


def _furthest(folder: RunFolder, start: Path) -> Path | None:
    """The saved state with the most updates, if there is one that began at `start`."""
    candidates = [*folder.interact_resume.glob("*"), *folder.checkpoints.glob(f"{start.name}_rl_*")]
    saved = [path for path in candidates if checkpoints.is_complete(path)]
    return max(saved, key=lambda path: int(checkpoints.facts(path)["step"]), default=None)


def _load(saved: Path, settings: RunSettings) -> dict[str, Any]:
    data = checkpoints.load_state(saved)
    if (written_by := data.get("algorithm", "ppo")) != settings.interact.algorithm:
        raise checkpoints.CheckpointError(
            f"{saved} was written by {written_by}, and interact.algorithm is {settings.interact.algorithm}; "
            "set it back, or start a new run"
        )
    return data


def _policy(
    saved: Path | None, start: Path, settings: RunSettings, data: Mapping[str, Any] | None, ranks: Ranks
) -> Policy:
    """The policy as it was saved, or a new one; divided where that is asked and there are processes to share it."""
    model = load_student(saved or start).to(ranks.device)  # type: ignore[arg-type]
    value_head = make_algorithm(settings.interact).needs_value_head
    if data is None:
        policy = Policy.from_student(model, settings.seed, value_head=value_head)
    else:
        head = None
        if value_head:
            head = ValueHead(model.config.get_text_config().hidden_size, settings.seed).to(ranks.device)
            head.load_state_dict(data["value_head"])
        policy = Policy(model, head, load_student(start).to(ranks.device))  # type: ignore[arg-type]
    policy.ranks = ranks
    policy.bfloat16 = settings.interact.dtype == "bfloat16"
    if settings.interact.shard and ranks.world > 1:
        policy.divide()
    return policy


def _restore(state: InteractionState, data: Mapping[str, Any], settings: RunSettings, run: str) -> None:
    if state.policy.divided:
        load_optimizer_state(state.policy.actor, state.optimizer, data["optimizer"])
    else:
        state.optimizer.load_state_dict(data["optimizer"])
    state.kl = _controller(settings.interact.kl, data["kl_coefficient"])
    state.ledger = Ledger.model_validate(data["ledger"])
    state.step = data["step"]
    state.milestone = data["milestone"]
    writer = Writer(run, settings.seed, settings.interact, state.tokenizer)
    state.in_flight = [writer.restore(written, state.policy.model.device) for written in data["in_flight"]]


def _controller(settings: KLSettings, coefficient: float) -> KLController:
    return KLController(
        coefficient,
        adaptive=settings.adaptive,
        target=settings.target,
        horizon=settings.horizon,
        floor=settings.floor,
    )
