"""The language-model judge on tiny random models of three families."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from fabula_proto import VerdictStatus
from services.teacher.judges import joint
from services.teacher.judges.base import JudgeUnavailableError, judge_stories
from services.teacher.judges.lm.loading import LoadedModel
from services.teacher.judges.transformers_judge import JudgeOptions, TransformersJudge
from services.teacher.rubric import Rubric
from tests.teacher_models import MAKERS, PAPER, SHORT, STORIES, TEXTS
from tests.tiny_models import load_tiny, make_tiny_llama


@pytest.fixture(scope="module", params=MAKERS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(MAKERS[request.param](tmp_path_factory.mktemp("models") / request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "llama")


def prompts_of(judge: TransformersJudge) -> list[list[int]]:
    return [judge.prompt_tokens(text)[0] for text in TEXTS]


def logprobs(judge: TransformersJudge, **options: bool) -> torch.Tensor:
    return torch.stack([answers.plain for answers in judge.scorers[0].answers(prompts_of(judge), **options)])


@pytest.mark.parametrize("chunk", [60, 200])  # below every prompt; and between the longest one and the others
def test_cached_prefix_batch_and_chunks_change_nothing(loaded: LoadedModel, chunk: int) -> None:
    judge = TransformersJudge(loaded, SHORT)
    lengths = sorted(map(len, prompts_of(judge)))
    assert 60 < lengths[0] <= lengths[-2] <= 200 < lengths[-1]
    together = logprobs(judge)
    uncached = logprobs(judge, cached=False)
    alone = torch.stack([judge.scorers[0].answers([tokens])[0].plain for tokens in prompts_of(judge)])
    chunked = logprobs(TransformersJudge(loaded, SHORT, JudgeOptions(chunk=chunk)))
    for other in (uncached, alone, chunked):
        torch.testing.assert_close(other, together, atol=1e-5, rtol=0)


def test_only_stories_beyond_the_chunk_go_alone(llama: Path) -> None:
    loaded = load_tiny(llama)
    judge = TransformersJudge(loaded, SHORT, JudgeOptions(chunk=200))
    passes: list[tuple[int, ...]] = []
    loaded.model.register_forward_pre_hook(
        lambda _model, _args, kwargs: passes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    judge_stories(judge, STORIES)
    (nodes,) = {judge.scorers[0].question.tree.inner}
    *short, long = sorted(map(len, prompts_of(judge)))
    assert passes == [(3, max(short) + nodes), (1, 200), (1, long - 1 - 200), (1, 1 + nodes)]


def test_stories_share_the_prefix_in_memory_and_leave_it_as_it_was(loaded: LoadedModel) -> None:
    judge = TransformersJudge(loaded, SHORT)
    prefix = judge.scorers[0].prefix
    assert prefix is not None
    before = [keys.clone() for keys, _ in prefix.layers]
    given: list[list[int]] = []
    hook = loaded.model.register_forward_pre_hook(
        lambda _model, _args, kwargs: given.append(
            [layer.keys.data_ptr() for layer in kwargs["past_key_values"].layers]
        ),
        with_kwargs=True,
    )
    judge_stories(judge, STORIES)
    hook.remove()
    assert given
    assert all(pointers == [keys.data_ptr() for keys, _ in prefix.layers] for pointers in given)
    assert all(torch.equal(keys, old) for (keys, _), old in zip(prefix.layers, before, strict=True))


def test_verdicts_keep_order_over_small_batches(loaded: LoadedModel) -> None:
    whole = judge_stories(TransformersJudge(loaded, SHORT), STORIES)
    judge = TransformersJudge(loaded, SHORT)
    in_pieces = [judge_stories(judge, [story])[0] for story in STORIES]
    assert [v.story_id for v in whole] == [s.id for s in STORIES]
    assert [v.total for v in whole] == pytest.approx([v.total for v in in_pieces], abs=1e-4)
    assert len({round(v.total or 0.0, 6) for v in whole}) == len(STORIES)


def test_temperature_is_applied_to_conditionals_and_named(llama: Path) -> None:
    model = load_tiny(llama)
    plain, cold = (TransformersJudge(model, SHORT, JudgeOptions(temperature=t)) for t in (1.0, 0.2))
    assert (plain.identity.mode, cold.identity.mode) == ("joint", "joint-t0.2")
    (scorer,) = plain.scorers
    logits, tree = scorer.forward.tree_logits(prompts_of(plain), scorer.prefix), scorer.question.tree
    expected = joint.answer_logprobs_BA(joint.edge_logprobs_BN(logits, tree, 0.2), tree)
    found = cold.scorers[0].answers(prompts_of(cold))
    torch.testing.assert_close(torch.stack([answers.tempered for answers in found]), expected)
    torch.testing.assert_close(torch.stack([answers.plain for answers in found]), logprobs(plain))
    peaks = [max(v.criteria["a"].probabilities) for j in (plain, cold) for v in judge_stories(j, STORIES) if v.criteria]
    assert min(peaks[4:]) > max(peaks[:4])


def test_an_untrained_model_is_named_as_one_and_coverage_is_a_setting(llama: Path) -> None:
    model = load_tiny(llama)
    (note,) = TransformersJudge(model, SHORT).notes
    assert "untrained" in note
    strict = TransformersJudge(model, SHORT, JudgeOptions(min_coverage=0.5))
    assert strict.notes == ()
    verdicts = judge_stories(strict, STORIES)
    assert {v.status for v in verdicts} == {VerdictStatus.FAILED}
    assert "less than 0.5" in (verdicts[0].reason or "")


def test_a_model_that_would_say_something_else_fails_by_default(llama: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(llama)
    with torch.no_grad():
        model.lm_head.weight *= 40  # sure of itself, and not of digits
    folder = make_tiny_llama(tmp_path / "sure")
    model.save_pretrained(folder)
    judge = TransformersJudge(load_tiny(folder), SHORT)
    assert judge.notes == ()
    assert {v.status for v in judge_stories(judge, STORIES)} == {VerdictStatus.FAILED}


def test_out_of_memory_halves_once(llama: Path) -> None:
    loaded = load_tiny(llama)
    judge = TransformersJudge(loaded, SHORT)
    expected = judge_stories(judge, STORIES)
    room = 2

    def refuse(_model: object, _args: object, kwargs: dict[str, torch.Tensor]) -> None:
        if len(kwargs["input_ids"]) > room:
            raise torch.OutOfMemoryError(f"no room for more than {room}")

    loaded.model.register_forward_pre_hook(refuse, with_kwargs=True)
    halved = judge_stories(judge, STORIES)
    assert [v.status for v in halved] == [VerdictStatus.OK] * 4
    assert [v.total for v in halved] == pytest.approx([v.total for v in expected], abs=1e-4)
    room = 1
    verdicts = judge_stories(judge, STORIES[:3])
    assert [v.status for v in verdicts] == [VerdictStatus.FAILED, VerdictStatus.FAILED, VerdictStatus.OK]
    assert "out of memory" in (verdicts[0].reason or "")


def test_other_rubrics_make_other_trees(llama: Path) -> None:
    two = Rubric.model_validate(
        {
            **PAPER.model_dump(),
            "name": "two",
            "criteria": [{**c.model_dump(), "levels": tuple("0123456789")} for c in PAPER.criteria[:2]],
        }
    )
    (verdict,) = judge_stories(TransformersJudge(load_tiny(llama), two), STORIES[:1])
    assert verdict.criteria is not None
    assert [len(score.probabilities) for score in verdict.criteria.values()] == [10, 10]
    many = Rubric.model_validate(
        {
            **two.model_dump(),
            "criteria": [{**two.criteria[0].model_dump(), "name": name} for name in ("a", "b", "c", "d")],
        }
    )
    with pytest.raises(JudgeUnavailableError, match="10000 possible answers"):
        TransformersJudge(load_tiny(llama), many)
