"""The word ledger: what a run has paid, and what it may still pay.

By the BabyLM interaction track's rules as arXiv 2509.15714 applies them, the input to the student counts: the prompt's
words once, the teacher's words for every story, and words of the corpus that are read in between. The student's own
words are counted but cost nothing.
"""

import json
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from services.student_trainer.files import write_atomically


class BudgetSpentError(RuntimeError):
    """The next batch would cost more than what is left. Nothing was spent."""


class Ledger(BaseModel):
    """An account in words. `reserve` refuses before anything is paid; the trainer pays when the verdicts are there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: int = Field(gt=0)
    prompt_words: int = Field(default=0, ge=0)
    teacher_words: int = Field(default=0, ge=0)
    corpus_words: int = Field(default=0, ge=0)
    student_words: int = Field(default=0, ge=0)
    stories: int = Field(default=0, ge=0)

    @property
    def spent(self) -> int:
        """Prompt, teacher and corpus words: what the budget counts."""
        return self.prompt_words + self.teacher_words + self.corpus_words

    def cost(self, stories: int, prompt_words: int, teacher_words_per_story: int) -> int:
        """Words that a batch will cost. The prompt is the same for every story of a run: it is charged once."""
        return stories * teacher_words_per_story + (prompt_words if self.stories == 0 else 0)

    def reserve(self, words: int) -> None:
        """Make sure that `words` can still be paid.

        Raises:
            BudgetSpentError: they cannot.
        """
        if self.spent + words > self.budget:
            raise BudgetSpentError(f"{words} words are needed and {self.budget - self.spent} of {self.budget} are left")

    def pay(
        self,
        stories: int,
        prompt_words: int,
        teacher_words_per_story: int,
        student_words: int,
        corpus_words: int = 0,
    ) -> Self:
        """The account after a batch.

        Raises:
            BudgetSpentError: the batch costs more than what is left.
        """
        self.reserve(self.cost(stories, prompt_words, teacher_words_per_story) + corpus_words)
        return self.model_copy(
            update={
                "prompt_words": self.prompt_words or prompt_words,
                "teacher_words": self.teacher_words + stories * teacher_words_per_story,
                "corpus_words": self.corpus_words + corpus_words,
                "student_words": self.student_words + student_words,
                "stories": self.stories + stories,
            }
        )

    def write(self, path: Path) -> None:
        """Write the account as JSON, all or nothing."""
        write_atomically(path, json.dumps(self.model_dump() | {"spent": self.spent}, indent=2) + "\n")
