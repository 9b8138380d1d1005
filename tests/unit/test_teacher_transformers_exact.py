"""The language-model judge's numbers against plain token-by-token computation, on three families of models."""

from collections import Counter
from collections.abc import Mapping

import pytest
import torch
from scipy.stats import chisquare

from fabula_proto import Story, Verdict, VerdictStatus
from services.teacher.judges import joint
from services.teacher.judges.base import judge_stories
from services.teacher.judges.lm.loading import LoadedModel
from services.teacher.judges.modes import uniform
from services.teacher.judges.transformers_judge import JudgeOptions, TransformersJudge
from tests.teacher_models import (
    ANSWERS,
    MAKERS,
    SHORT,
    STORIES,
    TEXTS,
    next_logprobs,
    spellings,
    teach_answers,
    whole_prompt,
)
from tests.tiny_models import load_tiny

T = 0.2
STORY = STORIES[1]
TOKENS = {"llama": ["2Ġ1", "Ġ", "2"], "qwen2": ["2", "Ġ", "1", "Ġ", "2"], "neox": ["2", "Ġ1", "Ġ2"]}
LEAVES = {"llama": 64, "qwen2": 64, "neox": 128}  # GPT-NeoX begins an answer with "2" or with " 2"
CRITICAL = 0.001  # chance that a right implementation fails for another seed


@pytest.fixture(scope="module", params=MAKERS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def loaded(family: str, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(MAKERS[family](tmp_path_factory.mktemp("models") / family))


@pytest.fixture(scope="module")
def taught(family: str, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A model that mostly gives valid answers after the STORY, at temperature T."""
    model = load_tiny(MAKERS[family](tmp_path_factory.mktemp("taught") / family))
    teach_answers(model, TransformersJudge(model, SHORT), STORY.text, T)
    return model


def plain_logprob(loaded: LoadedModel, prompt: list[int], answer: str) -> torch.Tensor:
    """Log-probability of an answer by a plain forward pass for each of its spellings, which are summed."""
    ways = []
    for tokens in spellings(loaded, answer):
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([prompt + tokens])).logits[0].double().log_softmax(-1)
        ways.append(sum(logits[len(prompt) - 1 + i, token] for i, token in enumerate(tokens)))
    return torch.stack([torch.as_tensor(way) for way in ways]).logsumexp(0)


def test_the_families_write_answers_differently(family: str, loaded: LoadedModel) -> None:
    (scorer,) = TransformersJudge(loaded, SHORT).scorers
    tree = scorer.question.tree
    assert loaded.tokenizer.tokenize("2 1 2") == TOKENS[family]
    assert (max(tree.depths), len(tree.leaf_edges)) == (len(TOKENS[family]), LEAVES[family])
    spelled = {tuple(tree.tokens[edge] for edge in joint.path_to(tree, leaf)) for leaf in tree.leaf_edges}
    assert spelled == {tuple(tokens) for answer in ANSWERS for tokens in spellings(loaded, answer)}


def test_joint_equals_teacher_forcing_of_all_64_answers(loaded: LoadedModel) -> None:
    judge = TransformersJudge(loaded, SHORT)
    found = judge.scorers[0].answers([judge.prompt_tokens(text)[0] for text in TEXTS])[0].plain  # the most padding
    prompt = whole_prompt(loaded, judge, TEXTS[0])
    expected = torch.stack([plain_logprob(loaded, prompt, answer) for answer in ANSWERS])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1), atol=1e-5, rtol=0)


def test_independent_equals_teacher_forcing_of_each_criterion(loaded: LoadedModel) -> None:
    judge = TransformersJudge(loaded, SHORT, JudgeOptions(mode="independent"))
    verdict = judge_stories(judge, STORIES)[0]
    assert verdict.criteria is not None
    masses = []
    for number, criterion in enumerate(SHORT.criteria):
        prompt = whole_prompt(loaded, judge, TEXTS[0], question=number)
        text = loaded.tokenizer.decode(prompt)
        others = [c.name for c in SHORT.criteria if c is not criterion]
        assert f"\n{criterion.name}: ?\n" in text
        assert not any(f"\n{other}: ?\n" in text for other in others)
        assert f"Answer with one whole number from 0 to 3, for {criterion.name}." in text
        expected = torch.stack([plain_logprob(loaded, prompt, str(level)) for level in range(4)])
        score = verdict.criteria[criterion.name]
        assert score.halo is None
        assert score.probabilities == pytest.approx(expected.softmax(-1).tolist(), abs=1e-5)
        masses.append(float(expected.exp().sum()))
    assert verdict.coverage == pytest.approx(min(masses), rel=1e-4)
    assert judge.identity.mode == "independent"


def test_halo_is_that_of_the_joint_and_only_joint_has_one(loaded: LoadedModel) -> None:
    judge = TransformersJudge(loaded, SHORT)
    (verdict,) = judge_stories(judge, [STORY])
    (answers,) = judge.scorers[0].answers(judge.prompt_tokens(STORY.text))
    expected = joint.halos_BC(answers.plain[None], 3, 4)[0].tolist()
    assert verdict.criteria is not None
    assert [score.halo for score in verdict.criteria.values()] == pytest.approx(expected)
    assert 0.0 < min(expected) < max(expected) < 1.0


def drawn_answer(verdict: Verdict) -> str | None:
    """The answer that a verdict of mode sample stands for; None where it was no valid one."""
    if verdict.criteria is None:
        assert verdict.status is VerdictStatus.FAILED
        assert "is no valid answer" in (verdict.reason or "")
        return None
    scores = verdict.criteria.values()
    assert all(sorted(score.probabilities) == [0, 0, 0, 1] and score.halo is None for score in scores)
    return " ".join(str(score.mode) for score in scores)


def fits(observed: Mapping[str | None, int], expected: Mapping[str | None, float]) -> float:
    """P-value of a chi-square test of counts against probabilities; bins below 5 expected draws are pooled."""
    draws = sum(observed.values())
    assert set(observed) <= set(expected)
    rare = {answer for answer, p in expected.items() if p * draws < 5}
    bins = [(observed.get(answer, 0), p * draws) for answer, p in expected.items() if answer not in rare]
    if rare:
        bins.append((sum(observed.get(answer, 0) for answer in rare), sum(expected[answer] for answer in rare) * draws))
    counts, wanted = zip(*bins, strict=True)
    assert len(bins) > 40
    return float(chisquare(counts, wanted).pvalue)


def tempered_joint(judge: TransformersJudge) -> tuple[torch.Tensor, dict[str | None, float]]:
    """Log-probabilities of the answers at temperature T, and the probabilities by name; None is no valid answer."""
    (answers,) = judge.scorers[0].answers(judge.prompt_tokens(STORY.text))
    probabilities = answers.tempered.exp()
    named: dict[str | None, float] = dict(zip(ANSWERS, probabilities.tolist(), strict=True))
    return answers.tempered, named | {None: 1.0 - float(probabilities.sum())}


def test_the_judge_draws_as_often_as_the_joint_says(taught: LoadedModel) -> None:
    judge = TransformersJudge(taught, SHORT, JudgeOptions(mode="sample", temperature=T))
    tempered, expected = tempered_joint(judge)
    assert 0.1 < expected[None] < 0.9
    drawn = [joint.draw(tempered, uniform(seed, STORY.text)) for seed in range(6000)]
    names = [None if answer is None else ANSWERS[answer] for answer in drawn]
    assert fits(Counter(names), expected) > CRITICAL
    # and the judge itself draws exactly those
    (plain,) = judge_stories(TransformersJudge(taught, SHORT), [STORY])
    some = [names.index(None), *range(5)]
    for seed in some:
        options = JudgeOptions(mode="sample", temperature=T, sample_seed=seed)
        (verdict,) = judge_stories(TransformersJudge(taught, SHORT, options), [STORY])
        assert drawn_answer(verdict) == names[seed]
        assert verdict.coverage == (plain.coverage if names[seed] else None)  # at temperature 1, as elsewhere


def sampled(loaded: LoadedModel, prompt: list[int], draws: int, generator: torch.Generator) -> Counter[str | None]:
    """Answers sampled one token after another at temperature T, from plain forward passes over the whole text."""
    answers = {tuple(tokens): answer for answer in ANSWERS for tokens in spellings(loaded, answer)}
    begun = {tokens[:length] for tokens in answers for length in range(len(tokens))}
    found: Counter[str | None] = Counter()
    waiting: list[tuple[tuple[int, ...], int]] = [((), draws)]
    while waiting:
        written, times = waiting.pop()
        probabilities = next_logprobs(loaded, [*prompt, *written], T).exp()
        tokens = torch.multinomial(probabilities, times, replacement=True, generator=generator)
        for token, count in Counter(tokens.tolist()).items():
            longer = (*written, token)
            if longer in begun:
                waiting.append((longer, count))
            else:
                found[answers.get(longer)] += count
    return found


def test_sampling_token_by_token_gives_what_the_joint_says(taught: LoadedModel) -> None:
    judge = TransformersJudge(taught, SHORT, JudgeOptions(mode="sample", temperature=T))
    _, expected = tempered_joint(judge)
    prompt = whole_prompt(taught, judge, STORY.text)
    observed = sampled(taught, prompt, 6000, torch.Generator().manual_seed(7))
    assert fits(observed, expected) > CRITICAL


def test_a_draw_depends_on_seed_and_story_alone(taught: LoadedModel) -> None:
    judge = TransformersJudge(taught, SHORT, JudgeOptions(mode="sample", temperature=T))
    assert judge.identity.mode == "sample-t0.2-seed42"
    (alone,) = judge_stories(judge, [STORY])
    again = Story(id="again", prompt="elsewhere", text=STORY.text)
    assert drawn_answer(judge_stories(judge, [*STORIES, again])[-1]) == drawn_answer(alone)
    strict = JudgeOptions(mode="sample", temperature=T, min_coverage=0.5)
    (failed,) = judge_stories(TransformersJudge(taught, SHORT, strict), [STORY])
    assert "less than 0.5" in (failed.reason or "")
