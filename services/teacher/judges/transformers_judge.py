"""A language model as the judge: exact joint scoring of the rubric's answer in one forward pass a batch.

Source: the answer format of arXiv 2509.15714; the tree of `joint`. What we do differently from the paper:
1. The distribution over answers is computed, not sampled: no answer is misread, and no noise is added. With
   temperature 0.2 it is the distribution that the paper samples from, given that the answer is valid.
2. An answer that the model would hardly give is no verdict: below `min_coverage` the verdict is `failed`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fabula_proto import Story, TeacherIdentity, Verdict, VerdictStatus
from services.teacher.judges import joint
from services.teacher.judges.base import Asked, JudgeUnavailableError
from services.teacher.judges.lm import prompt, template
from services.teacher.judges.lm.forward import TreeForward
from services.teacher.judges.lm.loading import LoadedModel, load_model
from services.teacher.judges.lm.probe import PROBE, probe
from services.teacher.judges.lm.tokens import ControlTokenError, StoryTokenizer, answer_tokens
from services.teacher.rubric import Rubric
from services.teacher.spec import TeacherSpec

log = logging.getLogger(__name__)

MAX_ANSWERS = 1024
# A model that would sooner say something else than grade does not stand behind its grades.
MIN_COVERAGE = 0.5
# Chat models are all but sure of the next token where an answer is due (a few percent of ln V); random weights are not.
UNTRAINED_ENTROPY_SHARE = 0.5


@dataclass(frozen=True)
class JudgeOptions:
    """What can be set about the judge; see TeacherSettings for each."""

    temperature: float = 1.0
    min_coverage: float | None = None
    chunk: int = 2048


def load_transformers_judge(spec: TeacherSpec, rubric: Rubric) -> "TransformersJudge":
    """Load the model that the settings name and make a judge of it.

    Raises:
        JudgeUnavailableError: see `load_model` and `TransformersJudge`.
    """
    if spec.target.model is None:
        raise JudgeUnavailableError(f"teacher {spec.judge!r} names no model; write transformers:<name or folder>")
    loaded = load_model(spec.target.model, revision=spec.teacher_revision, device=spec.device, dtype=spec.dtype)
    options = JudgeOptions(spec.chosen_temperature, spec.min_coverage)
    return TransformersJudge(loaded, rubric, options)


class TransformersJudge:
    """Judges with any causal language model that has a chat template.

    Raises:
        JudgeUnavailableError: the tokenizer, the template or the architecture cannot carry joint scoring; the tree's
            probabilities are compared with plain teacher forcing before the first story.
    """

    def __init__(self, loaded: LoadedModel, rubric: Rubric, options: JudgeOptions | None = None) -> None:
        self.options = options or JudgeOptions()
        self.rubric = rubric
        self._tokens = StoryTokenizer(loaded.tokenizer)
        self._criteria, self._levels = len(rubric.criteria), rubric.levels
        self.tree = self._build_tree(loaded)
        self.frame = self._frame(loaded)
        self.forward = TreeForward(loaded.model, self.tree, chunk=self.options.chunk)
        self._head, self._tail = self._tokens.trusted(self.frame.head), self._tokens.trusted(self.frame.tail)
        self._room = loaded.context - len(self._head) - max(self.tree.depths)
        if self._room < 1:
            raise JudgeUnavailableError(
                f"the rubric takes {len(self._head)} tokens of model {loaded.name!r}, whose context holds "
                f"{loaded.context}; take a shorter rubric or another model"
            )
        self._identity = self._identify(loaded)
        try:
            self.prefix = self.forward.prefix(self._head)
            self.notes, self._min_coverage = self._look_at_the_model()
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            if isinstance(error, JudgeUnavailableError):
                raise
            raise JudgeUnavailableError(
                f"model {loaded.name!r} ({type(loaded.model).__name__}) cannot be scored jointly "
                f"({type(error).__name__}: {error}); take a decoder with ordinary attention, such as a Llama or a Qwen"
            ) from error

    @property
    def identity(self) -> TeacherIdentity:
        """Model, content and number format, rubric, mode."""
        return self._identity

    @property
    def lanes(self) -> int:
        """One: the model is in this process."""
        return 1

    def prepare(self, story: Story) -> Asked | Verdict:
        """The story's prompt in tokens, or its refusal."""
        try:
            tokens = self.prompt_tokens(story.text)
        except ControlTokenError as error:
            return _without_numbers(story, VerdictStatus.REFUSED, f"the story is refused: {error}")
        if len(tokens) > self._room:
            reason = f"the story takes {len(tokens)} tokens, the judge's context has room for {self._room}: shorten it"
            return _without_numbers(story, VerdictStatus.REFUSED, reason)
        return Asked(story, len(tokens) + self.tree.inner, tokens)

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        """One verdict a story, in order, from one forward pass; see `Judge.judge`."""
        rows = self._logprobs_or_halve([item.payload for item in asked])
        return [self._verdict(item.story, row) for item, row in zip(asked, rows, strict=True)]

    def close(self) -> None:
        """Let go of the prefix; the model goes with the judge."""

    def prompt_tokens(self, text: str) -> list[int]:
        """The prompt for a story after the prefix: the fenced story, the reminder, and the turn to answer.

        Raises:
            ControlTokenError: the tokenizer cannot be kept from making control tokens of the story.
        """
        return self._tokens.plain(prompt.fenced(text)) + self._tail

    def answer_logprobs(self, prompts: Sequence[Sequence[int]], *, cached: bool = True) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, A), in nats, of the answers: at temperature 1, and at the judge's own temperature.

        Args:
            prompts: as `prompt_tokens` makes them.
            cached: whether the prefix's keys and values are reused or computed again.
        """
        if cached:
            logits = self.forward.tree_logits(prompts, self.prefix)
        else:
            logits = self.forward.tree_logits([[*self._head, *tokens] for tokens in prompts])
        plain = joint.answer_logprobs_BA(joint.edge_logprobs_BN(logits, self.tree), self.tree)
        if self.options.temperature == 1.0:
            return plain, plain
        edges = joint.edge_logprobs_BN(logits, self.tree, self.options.temperature)
        return plain, joint.answer_logprobs_BA(edges, self.tree)

    def _logprobs_or_halve(self, prompts: list[list[int]]) -> list[tuple[Tensor, Tensor] | None]:
        """Rows of `answer_logprobs` on the CPU. Out of memory, the batch is halved once; None where even that fails."""
        try:
            return self._rows(prompts)
        except torch.OutOfMemoryError:
            log.warning("out of memory with %d stories of up to %d tokens; halving", len(prompts), len(prompts[-1]))
        rows: list[tuple[Tensor, Tensor] | None] = []
        middle = (len(prompts) + 1) // 2
        for half in (prompts[:middle], prompts[middle:]):
            torch.cuda.empty_cache()
            try:
                rows += self._rows(half) if half else []
            except torch.OutOfMemoryError:
                rows += [None] * len(half)
        return rows

    def _rows(self, prompts: list[list[int]]) -> list[tuple[Tensor, Tensor] | None]:
        plain, tempered = self.answer_logprobs(prompts)
        return list(zip(plain.cpu(), tempered.cpu(), strict=True))

    def _verdict(self, story: Story, logprobs: tuple[Tensor, Tensor] | None) -> Verdict:
        if logprobs is None:
            reason = "the judge ran out of memory on this story; shorten it or lower FABULA_BATCH_TOKENS"
            return _without_numbers(story, VerdictStatus.FAILED, reason)
        plain_A, tempered_A = logprobs
        coverage = float(plain_A.logsumexp(dim=-1).exp())
        marginals_CL = joint.marginals_BCL(tempered_A.unsqueeze(0), self._criteria, self._levels)[0]
        if not torch.isfinite(marginals_CL).all():
            reason = "the judge's probabilities are not numbers; try FABULA_DTYPE=bfloat16 or float32"
            return _without_numbers(story, VerdictStatus.FAILED, reason)
        if coverage < self._min_coverage:
            reason = (
                f"the judge gave {coverage:.2g} of its probability to valid answers, less than {self._min_coverage:g}; "
                "it would say something else: check its chat template, or lower FABULA_MIN_COVERAGE"
            )
            return _without_numbers(story, VerdictStatus.FAILED, reason)
        named = zip(self.rubric.criteria, marginals_CL.tolist(), strict=True)
        return self.rubric.verdict(story.id, {c.name: row for c, row in named}, coverage=coverage)

    def _frame(self, loaded: LoadedModel) -> template.PromptFrame:
        try:
            return template.frame(loaded.tokenizer, self.rubric)
        except template.PromptError as error:
            raise JudgeUnavailableError(f"model {loaded.name!r} cannot be asked: {error}") from error

    def _build_tree(self, loaded: LoadedModel) -> joint.AnswerTree:
        if self._levels**self._criteria > MAX_ANSWERS:
            raise JudgeUnavailableError(
                f"rubric {self.rubric.name!r} has {self._levels**self._criteria} possible answers; joint scoring holds "
                f"at most {MAX_ANSWERS}: use fewer criteria or levels"
            )

        def decode(ids: Sequence[int]) -> str:
            return str(loaded.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

        try:
            return joint.build_tree(answer_tokens(self._tokens, decode, self._criteria, self._levels))
        except ValueError as error:
            raise JudgeUnavailableError(f"model {loaded.name!r} cannot answer the rubric: {error}") from error

    def _identify(self, loaded: LoadedModel) -> TeacherIdentity:
        number = str(loaded.model.dtype).removeprefix("torch.")
        tempered = "" if self.options.temperature == 1.0 else f"-t{self.options.temperature:g}"
        return TeacherIdentity(
            backend="transformers",
            model=loaded.name,
            revision=f"{loaded.revision}+{number}+prompt{prompt.PROMPT_VERSION}",
            rubric=self.rubric.name,
            rubric_version=self.rubric.version,
            rubric_hash=self.rubric.hash,
            mode=f"joint{tempered}",
        )

    def _look_at_the_model(self) -> tuple[tuple[str, ...], float]:
        """Notes for /info, and the coverage below which a verdict fails."""
        found = probe(self.forward, self.prefix, [self.prompt_tokens(text) for text in PROBE])
        log.info("the tree differs from teacher forcing by %.1g nats", found.difference)
        if self.options.min_coverage is not None:
            return (), self.options.min_coverage
        if found.entropy_share < UNTRAINED_ENTROPY_SHARE:
            return (), MIN_COVERAGE
        note = (
            f"the model looks untrained: where an answer is due, its next token has {found.entropy_share:.0%} of the "
            "largest possible entropy. Its verdicts mean nothing, and their coverage is not checked."
        )
        log.warning("%s", note)
        return (note,), 0.0


def _without_numbers(story: Story, status: VerdictStatus, reason: str) -> Verdict:
    return Verdict(story_id=story.id, status=status, reason=reason)
