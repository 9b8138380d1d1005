"""A language model as the judge: exact scoring of the rubric's answers, one forward pass a batch and question.

Source: the answer format of arXiv 2509.15714; the tree of `joint`. What we do differently from the paper:
1. The distribution over answers is computed, not sampled: no answer is misread, and no noise is added. With
   temperature 0.2 it is the distribution that the paper samples from, given that the answer is valid.
2. An answer that the model would hardly give is no verdict: below `min_coverage` the verdict is `failed`.
3. Mode `sample` draws one answer, as the paper does, from that same distribution: the draw is a function of the seed
   and the story alone. Where no valid answer is drawn the verdict is `failed`; the paper's code made a number of it.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fabula_proto import Story, TeacherIdentity, Verdict, VerdictStatus
from services.teacher.judges import joint, modes
from services.teacher.judges.base import Asked, JudgeUnavailableError
from services.teacher.judges.lm import prompt
from services.teacher.judges.lm.loading import LoadedModel, load_model, load_tokenizer
from services.teacher.judges.lm.probe import PROBE, probe
from services.teacher.judges.lm.question import questions
from services.teacher.judges.lm.scorer import Answers, Scorer
from services.teacher.judges.lm.tokens import ControlTokenError, StoryTokenizer
from services.teacher.rubric import Rubric
from services.teacher.spec import Mode, TeacherSpec

log = logging.getLogger(__name__)

# A model that would sooner say something else than grade does not stand behind its grades.
MIN_COVERAGE = 0.5
# Chat models are all but sure of the next token where an answer is due (a few percent of ln V); random weights are not.
UNTRAINED_ENTROPY_SHARE = 0.5


@dataclass(frozen=True)
class JudgeOptions:
    """What can be set about the judge; see TeacherSpec for each. `chunk`: see TreeForward."""

    mode: Mode = "joint"
    temperature: float = 1.0
    sample_seed: int = 42
    min_coverage: float | None = None
    chunk: int = 2048


def load_transformers_judge(spec: TeacherSpec, rubric: Rubric) -> "TransformersJudge":
    """Load the model that the spec names and make a judge of it.

    Raises:
        JudgeUnavailableError: see `load_model` and `TransformersJudge`.
    """
    source, mode = spec.target.model, spec.chosen_mode
    if source is None:
        raise JudgeUnavailableError(f"teacher {spec.judge!r} names no model; write transformers:<name or folder>")
    tokenizer = load_tokenizer(source, revision=spec.teacher_revision)
    questions(StoryTokenizer(tokenizer), rubric, mode, source)  # what is wrong here is known before the weights load
    loaded = load_model(source, tokenizer, revision=spec.teacher_revision, device=spec.device, dtype=spec.dtype)
    options = JudgeOptions(mode, spec.chosen_temperature, spec.sample_seed, spec.min_coverage)
    return TransformersJudge(loaded, rubric, options)


class TransformersJudge:
    """Judges with any causal language model that has a chat template.

    Raises:
        JudgeUnavailableError: the tokenizer, the template or the architecture cannot carry the answers' tree; its
            probabilities are compared with plain teacher forcing before the first story.
    """

    def __init__(self, loaded: LoadedModel, rubric: Rubric, options: JudgeOptions | None = None) -> None:
        self.options = options or JudgeOptions()
        self.rubric = rubric
        self._tokens = StoryTokenizer(loaded.tokenizer)
        asked = questions(self._tokens, rubric, self.options.mode, loaded.name)
        overhead = max(len(question.head) + max(question.tree.depths) for question in asked)
        self._room = loaded.context - overhead
        if self._room < 1:
            raise JudgeUnavailableError(
                f"the rubric takes {overhead} tokens of model {loaded.name!r}, whose context holds {loaded.context}; "
                "take a shorter rubric or another model"
            )
        self._identity = self._identify(loaded)
        try:
            temperature, chunk = self.options.temperature, self.options.chunk
            self.scorers = [Scorer(loaded.model, q, temperature=temperature, chunk=chunk) for q in asked]
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
        """The story's prompts in tokens, or its refusal. `tokens` is the longest one's: what a batch must hold."""
        try:
            story.text.encode("utf-8")
            tokens = self.prompt_tokens(story.text)
        except ControlTokenError as error:
            return _without_numbers(story, VerdictStatus.REFUSED, f"the story is refused: {error}")
        except UnicodeEncodeError as error:
            reason = f"the story is refused: a lone surrogate at character {error.start} is no text; replace it"
            return _without_numbers(story, VerdictStatus.REFUSED, reason)
        longest = max(map(len, tokens))
        if longest > self._room:
            reason = f"the story takes {longest} tokens, the judge's context has room for {self._room}: shorten it"
            return _without_numbers(story, VerdictStatus.REFUSED, reason)
        nodes = max(scorer.question.tree.inner for scorer in self.scorers)
        return Asked(story, longest + nodes, tokens)

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        """One verdict a story, in order, from one forward pass a question; see `Judge.judge`."""
        if not asked:
            return []
        answers = [
            scorer.answers_or_halve([item.payload[i] for item in asked]) for i, scorer in enumerate(self.scorers)
        ]
        return [self._verdict(item.story, found) for item, *found in zip(asked, *answers, strict=True)]

    def prompts(self, story: Story) -> tuple[str, ...]:
        """The texts that the model reads for this story, decoded from the tokens it is given; none where it is refused.

        A marker that the story spells out looks the same here as a control token, but was tokenised as plain text.
        """
        asked = self.prepare(story)
        if isinstance(asked, Verdict):
            return ()
        heads = [scorer.question.head for scorer in self.scorers]
        return tuple(self._tokens.decode([*head, *rest]) for head, rest in zip(heads, asked.payload, strict=True))

    def close(self) -> None:
        """Let go of the model and of what was computed with it."""
        self.scorers.clear()

    def prompt_tokens(self, text: str) -> list[list[int]]:
        """A question's prompt each, after its head: the fenced story, the reminder, and the turn to answer.

        Raises:
            ControlTokenError: the tokenizer cannot be kept from making control tokens of the story.
        """
        story = self._tokens.plain(prompt.fenced(text))
        return [scorer.question.prompt(story) for scorer in self.scorers]

    def _verdict(self, story: Story, answers: Sequence[Answers | None]) -> Verdict:
        known = [found for found in answers if found is not None]
        if len(known) < len(answers):
            reason = "the judge ran out of memory on this story; shorten it or lower FABULA_BATCH_TOKENS"
            return _without_numbers(story, VerdictStatus.FAILED, reason)
        if any(torch.isnan(found.tempered).any() for found in known):
            reason = "the judge's probabilities are not numbers; try FABULA_DTYPE=bfloat16 or float32"
            return _without_numbers(story, VerdictStatus.FAILED, reason)
        coverage = min(float(found.plain.logsumexp(dim=-1).exp()) for found in known)
        needed = max(self._min_coverage, sys.float_info.min)
        if coverage < needed:
            reason = (
                f"the judge gave {coverage:.2g} of its probability to valid answers, less than {needed:g}; "
                "it would say something else: check its chat template, or lower FABULA_MIN_COVERAGE"
            )
            return _without_numbers(story, VerdictStatus.FAILED, reason)
        if self.options.mode == "sample":
            return self._drawn(story, known[0].tempered, coverage)
        names = [criterion.name for criterion in self.rubric.criteria]
        levels_CL = [
            row
            for found, scorer in zip(known, self.scorers, strict=True)
            for row in joint.marginals_BCL(found.tempered[None], scorer.question.criteria, self.rubric.levels)[
                0
            ].tolist()
        ]
        halo = None
        if self.options.mode == "joint":
            shares = joint.halos_BC(known[0].tempered[None], len(names), self.rubric.levels)[0].tolist()
            halo = dict(zip(names, shares, strict=True))
        return self.rubric.verdict(story.id, dict(zip(names, levels_CL, strict=True)), coverage=coverage, halo=halo)

    def _drawn(self, story: Story, answers_A: torch.Tensor, coverage: float) -> Verdict:
        seed, temperature = self.options.sample_seed, self.options.temperature
        drawn = joint.draw(answers_A, modes.uniform(seed, story.text))
        if drawn is None:
            reason = (
                f"what was drawn at temperature {temperature:g} with seed {seed} is no valid answer; valid ones have "
                f"{float(answers_A.logsumexp(dim=-1).exp()):.2g} of the probability there: mode joint needs no draw"
            )
            return _without_numbers(story, VerdictStatus.FAILED, reason)
        answer = joint.answer_levels(len(self.rubric.criteria), self.rubric.levels)[drawn]
        sure = {
            criterion.name: [float(level == chosen) for level in range(self.rubric.levels)]
            for criterion, chosen in zip(self.rubric.criteria, answer, strict=True)
        }
        return self.rubric.verdict(story.id, sure, coverage=coverage)

    def _identify(self, loaded: LoadedModel) -> TeacherIdentity:
        number = str(loaded.model.dtype).removeprefix("torch.")
        return TeacherIdentity(
            backend="transformers",
            model=loaded.name,
            revision=f"{loaded.revision}+{number}+prompt{prompt.PROMPT_VERSION}",
            rubric=self.rubric.name,
            rubric_version=self.rubric.version,
            rubric_hash=self.rubric.hash,
            mode=modes.mode_name(self.options.mode, self.options.temperature, self.options.sample_seed),
        )

    def _look_at_the_model(self) -> tuple[tuple[str, ...], float]:
        """Notes for /info, and the coverage below which a verdict fails."""
        texts = [self.prompt_tokens(text) for text in PROBE]
        found = [
            probe(scorer.forward, scorer.prefix, [tokens[i] for tokens in texts])
            for i, scorer in enumerate(self.scorers)
        ]
        log.info("the tree differs from teacher forcing by %.1g nats", max(result.difference for result in found))
        if self.options.min_coverage is not None:
            return (), self.options.min_coverage
        surest = min(result.entropy_share for result in found)
        if surest < UNTRAINED_ENTROPY_SHARE:
            return (), MIN_COVERAGE
        note = (
            f"the model looks untrained: where an answer is due, its next token has {surest:.0%} of the largest "
            "possible entropy. Its verdicts mean nothing, and their coverage is not checked."
        )
        log.warning("%s", note)
        return (note,), 0.0


def _without_numbers(story: Story, status: VerdictStatus, reason: str) -> Verdict:
    return Verdict(story_id=story.id, status=status, reason=reason)
