"""The tree of answers without torch: by hand, and against the in-process one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.teacher.judges import joint
from services.teacher.judges.remote import tree as remote
from services.teacher.judges.remote.tree import ROOT, MalformedAnswerError, Path, Reached


def walk(
    tree: remote.AnswerTree, table: dict[Path, dict[remote.Token, float]], temperature: float
) -> dict[Path, Reached]:
    """Every inner path's next tokens taken from `table`, level by level, as the judge does."""
    reached, paths = {ROOT: Reached(0.0, 0.0)}, [ROOT]
    while paths:
        grown: dict[Path, Reached] = {}
        for path in paths:
            grown |= remote.extend(tree, path, reached[path], remote.checked(table[path]), temperature)
        reached |= grown
        paths = remote.worth_asking(tree, grown)
    return reached


@settings(max_examples=30, deadline=None)
@given(
    criteria=st.integers(1, 3),
    levels=st.integers(2, 4),
    seed=st.integers(0, 999),
    temperature=st.sampled_from([1.0, 0.2, 3.0]),
    spaced=st.booleans(),
)
def test_the_distribution_is_the_in_process_one(
    criteria: int, levels: int, seed: int, temperature: float, spaced: bool
) -> None:
    space, vocabulary = levels, levels + 3
    answers = [
        [i for level in answer for i in (level, space)][: 2 * criteria - 1] if spaced else list(answer)
        for answer in joint.answer_levels(criteria, levels)
    ]
    theirs = joint.build_tree([[answer] for answer in answers])
    logits = 3 * torch.randn(1, 1 + theirs.inner, vocabulary, generator=torch.Generator().manual_seed(seed))
    plain = joint.answer_logprobs_BA(joint.edge_logprobs_BN(logits, theirs), theirs)
    tempered = joint.answer_logprobs_BA(joint.edge_logprobs_BN(logits, theirs, temperature), theirs)
    ours = remote.build_tree([[tuple(answer)] for answer in answers])
    rows = {ROOT: 0} | {
        tuple(theirs.tokens[edge] for edge in joint.path_to(theirs, node)): node + 1 for node in range(theirs.inner)
    }
    logprobs = logits[0].double().log_softmax(-1)
    table: dict[Path, dict[remote.Token, float]] = {
        path: dict(enumerate(logprobs[row].tolist())) for path, row in rows.items()
    }
    found, coverage = remote.answer_probabilities(ours, walk(ours, table, temperature))
    assert found == pytest.approx(tempered[0].softmax(-1).tolist(), abs=1e-5)
    assert coverage == pytest.approx(float(plain.logsumexp(-1).exp()), abs=1e-5)
    assert remote.marginals(found, criteria, levels) == [
        pytest.approx(row, abs=1e-5) for row in joint.marginals_BCL(tempered, criteria, levels)[0].tolist()
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(2, 4), st.integers(0, 999))
def test_the_halo_is_the_in_process_one(criteria: int, levels: int, seed: int) -> None:
    answers = 4 * torch.randn(1, levels**criteria, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    found = remote.halos(answers[0].softmax(-1).tolist(), criteria, levels)
    assert found == pytest.approx(joint.halos_BC(answers, criteria, levels)[0].tolist(), abs=1e-6)


def test_what_did_not_come_back_counts_as_one_token() -> None:
    tree = remote.build_tree([[(0,)], [(1,)]])
    grown = remote.extend(tree, ROOT, Reached(0.0, 0.0), {0: math.log(0.6), 1: math.log(0.3)}, 0.5)
    normaliser = 0.6**2 + 0.3**2 + 0.1**2
    assert math.exp(grown[0,].tempered) == pytest.approx(0.6**2 / normaliser)
    assert math.exp(grown[0,].plain) == pytest.approx(0.6)


def test_an_answer_that_did_not_come_back_has_no_probability() -> None:
    tree = remote.build_tree([[(0,)], [(1,)]])
    grown = remote.extend(tree, ROOT, Reached(0.0, 0.0), {0: math.log(0.6), 7: math.log(0.3)}, 1.0)
    found, coverage = remote.answer_probabilities(tree, grown)
    assert found == [1.0, 0.0]
    assert coverage == pytest.approx(0.6)
    with pytest.raises(MalformedAnswerError, match="none of the answers"):
        remote.answer_probabilities(tree, {})


def test_branches_next_to_impossible_are_not_asked_about() -> None:
    tree = remote.build_tree([[(0, 0)], [(0, 1)], [(1, 0)], [(1, 1)]])
    grown = remote.extend(tree, ROOT, Reached(0.0, 0.0), {0: -0.01, 1: -18.0}, 1.0)
    assert remote.worth_asking(tree, grown) == [(0,)]
    hot = remote.extend(tree, ROOT, Reached(0.0, 0.0), {0: -0.01, 1: -18.0}, 10.0)
    assert remote.worth_asking(tree, hot) == [(0,), (1,)]


@pytest.mark.parametrize(
    "logprobs",
    [{0: float("nan")}, {0: 0.5}, {0: "-1"}, {0: None}, {0: True}, {0: -0.1, 1: -0.1, 2: -0.1}],
    ids=["nan", "positive", "text", "null", "bool", "sum"],
)
def test_impossible_log_probabilities_are_no_answer(logprobs: dict[remote.Token, object]) -> None:
    with pytest.raises(MalformedAnswerError):
        remote.checked(logprobs)


def test_rounding_is_forgiven() -> None:
    assert remote.checked({0: 1e-4, 1: -9999.0, 2: -3.4e38, 3: float("-inf")})[0] == 0.0


@pytest.mark.parametrize(
    ("tokenisations", "says"),
    [
        ([[(1,), (1, 2)]], "beginning of another"),
        ([[(1,)], [(1,)]], "spell both"),
        ([[()]], "empty"),
        ([[]], "no tokens"),
    ],
)
def test_ambiguous_tokenisations_are_refused(tokenisations: list[list[Path]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        remote.build_tree(tokenisations)
