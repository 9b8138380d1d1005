"""A tiny student with a checkpoint to start from, and a teacher that answers the queue in a thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from fabula_proto import (
    STORIES_STREAM,
    TEACHERS_GROUP,
    ScoredBatch,
    Story,
    StoryBatch,
    TeacherIdentity,
    Verdict,
    scores_stream,
)
from fabula_proto.streams import Consumer, Streams
from services.student_trainer import checkpoints, config
from services.student_trainer.run_folder import RunFolder
from services.student_trainer.settings import CorpusSettings, RunSettings, TokenizerSettings
from services.student_trainer.student import build_student
from services.student_trainer.tokenizer import train_tokenizer
from services.teacher.rubric import load_rubric

TEXT = "Once upon a time, in a faraway land, there lived a small brown fox who sang to the moon. The moon sang back."
IDENTITY = TeacherIdentity(
    backend="test", model="vowels", revision="1", rubric="paper", rubric_version="1", rubric_hash="0" * 12, mode="rules"
)


def tiny_settings(**interact: object) -> RunSettings:
    """A run of three updates of six stories on a two-layer student."""
    base: dict[str, object] = {
        "prompt": "Once upon a time,",
        "word_budget": 4 + 3 * 18,
        "batch_size": 6,
        "chunk_size": 4,
        "max_new_tokens": 12,
        "checkpoint_every_words": 20,
        "verdict_timeout_s": 20.0,
        "ppo": {"learning_rate": 1e-3},
        "guards": {"canaries": {"every": None}},  # tests count what the teacher is asked
    }
    return config.parse(
        {
            "preset": "smoke",
            "threads": 1,
            "tokenizer": {"vocab_size": 300},
            "student": {"layers": 2, "heads": 2, "width": 16, "context": 64, "dropout": 0.1},
            "pretrain": {"word_budget": 1000, "block_tokens": 32},
            "interact": base | interact,
        }
    )


def mixed_settings(**interact: object) -> RunSettings:
    """The same with two corpus batches after each update, and words for three or four."""
    mixed = {"batches_per_update": 2, "batch_size": 3, "learning_rate": 1e-3}
    settings = tiny_settings(**{"word_budget": 340, "mixed": mixed} | interact)
    return settings.model_copy(update={"corpus": CorpusSettings(grammar_words=2_000)})


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level BPE of 300 entries."""
    return train_tokenizer([TEXT] * 4, TokenizerSettings(vocab_size=300, min_frequency=2))


def make_run(path: Path, settings: RunSettings) -> tuple[RunFolder, Path]:
    """A run folder with its configuration and a random pretrained checkpoint."""
    folder = RunFolder(path)
    path.mkdir(parents=True)
    folder.config.write_text(config.dump(settings, folder.run), encoding="utf-8")
    tokenizer = tiny_tokenizer()
    start = checkpoints.save(
        folder.checkpoints / checkpoints.pretrain_name(settings.pretrain.word_budget),
        build_student(settings.student, tokenizer, seed=7),
        tokenizer,
        state={},
        facts={"stage": "pretrain", "pretraining_words": 1000, "interaction_words": 0, "step": 0},
    )
    return folder, start


def vowel_verdict(story: Story) -> Verdict:
    """A deterministic score with a gradient: the share of vowels, for every criterion."""
    letters = [c for c in story.text.lower() if c.isalpha()]
    level = 3 * sum(c in "aeiou" for c in letters) / max(1, len(letters))
    low = min(2, int(level))
    probabilities = [0.0] * 4
    probabilities[low], probabilities[low + 1] = 1 - (level - low), level - low
    rubric = load_rubric()
    return rubric.verdict(story.id, {c.name: probabilities for c in rubric.criteria})


@contextmanager
def teacher_thread(redis_url: str, judge: Callable[[Story], Verdict] = vowel_verdict) -> Iterator[list[StoryBatch]]:
    """Answer StoryBatches until the block ends; yields the list of batches that were judged."""
    stop = threading.Event()
    judged: list[StoryBatch] = []

    def answer(batch: StoryBatch) -> ScoredBatch:
        judged.append(batch)
        return ScoredBatch(
            run=batch.run,
            step=batch.step,
            chunk=batch.chunk,
            digest=batch.digest,
            verdicts=tuple(judge(story) for story in batch.stories),
            teacher=IDENTITY,
            worker="thread",
            seconds=0.0,
        )

    streams = Streams(redis_url)
    consumer = Consumer(streams, STORIES_STREAM, TEACHERS_GROUP, "thread", StoryBatch)
    thread = threading.Thread(
        target=lambda: consumer.run(answer, stop, result_stream=lambda batch: scores_stream(batch.run))
    )
    thread.start()
    try:
        yield judged
    finally:
        stop.set()
        thread.join(timeout=10)
        assert not thread.is_alive()
        streams.close()
