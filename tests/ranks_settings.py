"""Runs that several processes share in tests."""

from collections.abc import Callable
from pathlib import Path

from services.student_trainer import config
from services.student_trainer.corpus import load_documents
from services.student_trainer.pretraining import pretrain
from services.student_trainer.ranks import Ranks
from services.student_trainer.settings import (
    CorpusSettings,
    InteractSettings,
    PretrainSettings,
    RunSettings,
    StudentSettings,
    TokenizerSettings,
)
from tests.trainer_helpers import mixed_settings, tiny_settings

FAILING_PROMPT = "There was once"
"""The test's teacher fails at these stories from update 1 on."""


def pretrain_settings(name: str) -> RunSettings:
    """`dropout`: with dropout, a batch in two micro-batches; `sharded...`: divided among the processes."""
    dropout = name == "dropout"
    return RunSettings(
        preset="test",
        seed=5,
        corpus=CorpusSettings(grammar_words=4_000),
        tokenizer=TokenizerSettings(vocab_size=400),
        student=StudentSettings(layers=1, heads=2, width=32, context=100, dropout=0.2 if dropout else 0.0),
        interact=InteractSettings(max_new_tokens=20),
        pretrain=PretrainSettings(
            word_budget=1_500,
            learning_rate=3e-3,
            block_tokens=32,
            batch_size=6,
            micro_batch_size=3 if dropout else None,
            shard=name.startswith("sharded"),
            milestones=(800,),
            log_every=1,
        ),
    )


def interact_settings(name: str) -> RunSettings:
    """Three updates of six stories in two chunks; some runs differ by name.

    `mixed`: each process reads an uneven share of every corpus batch. `..._sharded`: divided among the processes.
    """
    if name.endswith("_sharded"):
        whole = interact_settings(name.removesuffix("_sharded"))
        return whole.model_copy(update={"interact": whole.interact.model_copy(update={"shard": True})})
    if name == "mixed":
        return mixed_settings()
    changes: dict[str, dict[str, object]] = {
        "grpo": {
            "algorithm": "grpo",
            "grpo": {"learning_rate": 1e-3, "minibatch_size": 3, "epochs": 2, "micro_batch_size": 1},
            "lag": 1,
            "kl": {"coefficient": 0.1},
        },
        "one_chunk": {"chunk_size": 6},
        "failing": {"prompt": FAILING_PROMPT},
    }
    return tiny_settings(**changes.get(name, {}))


def whole_run_settings() -> RunSettings:
    """Some steps of pretraining, then the three updates."""
    pretrain = {"word_budget": 600, "block_tokens": 32, "batch_size": 4, "learning_rate": 1e-3, "log_every": 1}
    return config.parse(
        interact_settings("ppo").model_dump(mode="json")
        | {
            "corpus": {"source": "grammar", "grammar_words": 2_000},
            "student": {"layers": 2, "heads": 2, "width": 16, "context": 100, "dropout": 0.0},
            "pretrain": pretrain,
        }
    )


def go(
    folder: Path,
    settings: RunSettings,
    ranks: Ranks,
    stop_after: int | None = None,
    stop: Callable[[], bool] = lambda: True,
) -> Path | None:
    """Pretrain in `folder`; after so many steps the last process asks to stop, or whatever `stop` does."""
    polls = 0

    def should_stop() -> bool:
        nonlocal polls
        polls += 1
        return stop_after is not None and polls > stop_after and ranks.rank == ranks.world - 1 and stop()

    corpus = load_documents(settings.corpus, settings.seed)
    return pretrain(folder, "r", settings, corpus, lambda _: None, should_stop, lambda *_: None, ranks)
