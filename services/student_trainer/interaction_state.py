"""Everything that interaction needs to go on: weights, value head, optimiser, controller, ledger and cursor."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

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
from services.student_trainer.student import load_student


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
    device = ranks.device
    ranks.on_main(lambda _: checkpoints.verify(start))
    saved = ranks.on_main(lambda _: _furthest(folder, start))
    model = load_student(saved or start).to(device)  # type: ignore[arg-type]
    algorithm = make_algorithm(settings.interact)
    if saved is None:
        policy = Policy.from_student(model, settings.seed, value_head=algorithm.needs_value_head)
    else:
        head = None
        if algorithm.needs_value_head:
            head = ValueHead(model.config.get_text_config().hidden_size, settings.seed).to(device)
        reference = load_student(start).to(device)  # type: ignore[arg-type]
        policy = Policy(model, head, reference)
    policy.ranks = ranks
    policy.bfloat16 = settings.interact.dtype == "bfloat16"
    kl_settings = settings.interact.kl
    state = InteractionState(
        start=start,
        policy=policy,
        tokenizer=AutoTokenizer.from_pretrained(start),
        optimizer=make_optimizer(policy, algorithm.settings),
        kl=_controller(kl_settings, kl_settings.coefficient),
        kl_used=kl_settings.coefficient,
        ledger=Ledger(budget=settings.interact.word_budget),
        step=0,
        milestone=0,
        in_flight=[],
    )
    if saved is not None:
        _restore(state, saved, settings, folder.run)
    ranks.everywhere(lambda: None)  # all have read what the main process may from now on replace
    ranks.on_main(lambda _: _take_back_records(folder, state))
    return state


def _take_back_records(folder: RunFolder, state: InteractionState) -> None:
    rewind_metrics(folder.metrics, state.step)
    rewind_stories(folder.stories, state.step)
    state.ledger.write(folder.ledger)


def save(path: Path, folder: RunFolder, settings: RunSettings, state: InteractionState) -> Path:
    """Save the state as a checkpoint at `path`; resume points that are behind it are no longer needed."""
    value_head = state.policy.value_head
    pretraining_words = checkpoints.facts(state.start)["pretraining_words"]
    checkpoints.save(
        path,
        state.policy.model,
        state.tokenizer,
        state={
            "step": state.step,
            "milestone": state.milestone,
            "kl_coefficient": state.kl.coefficient,
            "ledger": state.ledger.model_dump(),
            "in_flight": [to_saved(written) for written in state.in_flight],
            "algorithm": settings.interact.algorithm,
            "optimizer": state.optimizer.state_dict(),
            **({} if value_head is None else {"value_head": value_head.state_dict()}),
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


def save_resume_point(folder: RunFolder, settings: RunSettings, state: InteractionState) -> Path:
    """Save the state where the next start finds it. The last resume point goes only when this one is whole."""
    return save(folder.interact_resume / str(state.step), folder, settings, state)


def _furthest(folder: RunFolder, start: Path) -> Path | None:
    """The saved state with the most updates, if there is one that began at `start`."""
    candidates = [*folder.interact_resume.glob("*"), *folder.checkpoints.glob(f"{start.name}_rl_*")]
    saved = [path for path in candidates if checkpoints.is_complete(path)]
    return max(saved, key=lambda path: int(checkpoints.facts(path)["step"]), default=None)


def _restore(state: InteractionState, saved: Path, settings: RunSettings, run: str) -> None:
    data = checkpoints.load_state(saved)
    if (written_by := data.get("algorithm", "ppo")) != settings.interact.algorithm:
        raise checkpoints.CheckpointError(
            f"{saved} was written by {written_by}, and interact.algorithm is {settings.interact.algorithm}; "
            "set it back, or start a new run"
        )
    if state.policy.value_head is not None:
        state.policy.value_head.load_state_dict(data["value_head"])
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
