"""What the suites of one evaluation share."""

from collections.abc import Callable
from dataclasses import dataclass

from services.evaluator.adapters.checkpoint import LoadedCheckpoint
from services.evaluator.adapters.run_config import RunConfig
from services.evaluator.engine import Engine, ItemsDone, LogProbabilityEngine
from services.evaluator.masked import MaskedEngine
from services.evaluator.progress import Progress, Watch
from services.evaluator.request import EvaluationRequest
from services.evaluator.settings import EvaluatorSettings
from services.evaluator.suites.outcome import SuiteOutcome


@dataclass(frozen=True, slots=True)
class Bench:
    """One checkpoint, loaded, and what it is to be measured with."""

    settings: EvaluatorSettings
    request: EvaluationRequest
    run: RunConfig
    checkpoint: LoadedCheckpoint
    engine: Engine
    watch: Watch

    def done(self, suite: str) -> ItemsDone:
        """Tells `watch` how far `suite` is; call it often, for it may raise AbandonedError to stop."""
        return lambda done, total: self.watch(Progress(suite, done, total))


def make_engine(checkpoint: LoadedCheckpoint, token_budget: int | None) -> Engine:
    """The engine for the checkpoint's backend."""
    if checkpoint.backend == "causal":
        return LogProbabilityEngine(checkpoint.model, checkpoint.tokenizer, token_budget)
    return MaskedEngine(checkpoint.model, checkpoint.tokenizer, token_budget, shifted=checkpoint.backend == "mntp")


@dataclass(frozen=True, slots=True)
class Measured:
    """A suite's outcome as its runner hands it back."""

    outcome: SuiteOutcome
    note: str | None = None  # what was left out, if anything was
    results_path: str | None = None
    """Where the outcome's files lie below `results/<model>/<revision>/` of the BabyLM 2025 pipeline; none: nowhere."""


Runner = Callable[[Bench], Measured]
"""Measures one suite. Raises MissingDataError (skipped), another EvaluatorError (failed) or AbandonedError (stop)."""
