"""Steps that are written and not learned from yet: at `lag` 0 one, at `lag` n up to n + 1.

Step t is always written by the policy that has seen max(0, t - lag) updates, so that the result does not depend on
timing. What is in flight is part of the saved state: a policy of the past could not write it again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fabula_proto import Story, StoryBatch
from services.student_trainer.config import ConfigError
from services.student_trainer.ranks import Ranks
from services.student_trainer.rollout import Rollout, join, write_stories
from services.student_trainer.settings import InteractSettings

MAX_REQUEST_ID = 128  # of StoryBatch


@dataclass(frozen=True)
class WrittenStep:
    """One step's stories, and the chunks in which they go to the teacher."""

    step: int
    policy_version: int
    rollout: Rollout
    batches: tuple[StoryBatch, ...]

    @property
    def stories(self) -> tuple[Story, ...]:
        """All of them, in order."""
        return tuple(story for batch in self.batches for story in batch.stories)


@dataclass(frozen=True)
class Writer:
    """Writes steps of one run. `run` and `seed` are its own.

    Of several processes each writes and sends whole chunks, so that stories are the same whatever their number; what
    all wrote is then exchanged.

    Raises:
        ConfigError: on writing, where there are more processes than chunks.
    """

    run: str
    seed: int
    options: InteractSettings
    tokenizer: PreTrainedTokenizerBase
    ranks: Ranks = field(default_factory=Ranks)

    def write(
        self, model: PreTrainedModel, step: int, policy_version: int, send: Callable[[StoryBatch], None]
    ) -> WrittenStep:
        """Write the stories that update `step` will learn from; each chunk is sent while the next one is written."""
        chunks = self._chunks()
        if self.ranks.world > len(chunks):
            raise ConfigError(
                f"{self.ranks.world} processes cannot share {len(chunks)} chunks of stories; start fewer, or set "
                f"interact.chunk_size to at most {self.options.batch_size // self.ranks.world}"
            )

        def own() -> list[tuple[Rollout, StoryBatch]]:
            pieces = []
            for number in self.ranks.share(len(chunks)):
                rollout = write_stories(
                    model,
                    self.tokenizer,
                    self.options.prompt,
                    seed=self.seed,
                    step=step,
                    indices=chunks[number],
                    max_new_tokens=self.options.max_new_tokens,
                    temperature=self.options.temperature,
                    cuda_graph=self.options.cuda_graph,
                )
                batch = self._batch(step, policy_version, number, chunks[number], rollout.texts)
                send(batch)
                pieces.append((rollout.to(torch.device("cpu")), batch))
            return pieces

        pieces = [piece for part in self.ranks.everywhere(own) for piece in part]
        rollout = join([rollout for rollout, _ in pieces], self.tokenizer.pad_token_id)
        return WrittenStep(step, policy_version, rollout.to(model.device), tuple(batch for _, batch in pieces))

    def restore(self, saved: Mapping[str, Any], device: torch.device) -> WrittenStep:
        """The step that `to_saved` saved."""
        rollout = Rollout.restored(saved["rollout"], self.tokenizer, device)
        step, version = saved["step"], saved["policy_version"]
        batches = [
            self._batch(step, version, number, indices, [rollout.texts[index] for index in indices])
            for number, indices in enumerate(self._chunks())
        ]
        return WrittenStep(step, version, rollout, tuple(batches))

    def _chunks(self) -> list[list[int]]:
        """Story indices of each chunk."""
        size, total = self.options.chunk_size, self.options.batch_size
        return [list(range(first, min(first + size, total))) for first in range(0, total, size)]

    def _batch(
        self, step: int, policy_version: int, number: int, indices: Sequence[int], texts: Sequence[str]
    ) -> StoryBatch:
        return StoryBatch(
            run=self.run,
            step=step,
            chunk=number,
            chunks=len(self._chunks()),
            policy_version=policy_version,
            stories=tuple(
                Story(id=f"{step}-{index}", prompt=self.options.prompt, text=text)
                for index, text in zip(indices, texts, strict=True)
            ),
            request_id=f"{self.run}/{step}/{number}"[-MAX_REQUEST_ID:],
        )


def to_saved(written: WrittenStep) -> dict[str, Any]:
    """What `torch.save` keeps of a step: tensors and numbers, from which `Writer.restore` makes it again."""
    return {
        "step": written.step,
        "policy_version": written.policy_version,
        "rollout": written.rollout.saved(),
    }
