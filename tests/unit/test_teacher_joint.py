"""The answer tree and its arithmetic, by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.teacher.judges import joint


def test_the_papers_answers_make_forty_inner_nodes() -> None:
    space = 9
    tokenisations = [[[r, space, n, space, c]] for r, n, c in joint.answer_levels(3, 4)]
    tree = joint.build_tree(tokenisations)
    assert (tree.inner, len(tree.leaf_edges), tree.answers) == (40, 64, 64)
    assert [tree.tokens[edge] for edge in joint.path_to(tree, tree.leaf_edges[0])] == [0, 9, 0, 9, 0]
    assert tree.leaf_answers == tuple(range(64))


@pytest.mark.parametrize(
    ("tokenisations", "says"),
    [
        ([[[1], [1, 2]]], "beginning of another"),
        ([[[1]], [[1]]], "spell both"),
        ([[[]]], "empty"),
        ([[]], "no tokens"),
    ],
)
def test_ambiguous_tokenisations_are_refused(tokenisations: list[list[list[int]]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        joint.build_tree(tokenisations)


def test_probabilities_of_a_two_step_tree_by_hand() -> None:
    # One criterion of two levels; answer 0 is "5", answer 1 is "6 7" or "8".
    tree = joint.build_tree([[[5]], [[6, 7], [8]]])
    logits = torch.full((1, 1 + tree.inner, 10), -torch.inf)
    logits[0, 0, [5, 6, 8, 0]] = torch.tensor([0.2, 0.4, 0.1, 0.3]).log()
    logits[0, 1, [7, 1]] = torch.tensor([0.5, 0.5]).log()
    answers = joint.answer_logprobs_BA(joint.edge_logprobs_BN(logits, tree), tree)
    torch.testing.assert_close(answers.exp(), torch.tensor([[0.2, 0.4 * 0.5 + 0.1]], dtype=torch.double))
    marginals = joint.marginals_BCL(answers, criteria=1, levels=2)
    torch.testing.assert_close(marginals, torch.tensor([[[0.4, 0.6]]], dtype=torch.double))


def test_temperature_sharpens_each_conditional() -> None:
    tree = joint.build_tree([[[0]], [[1]]])
    logits = torch.tensor([[[0.6, 0.4, 0.0]]]).log()
    edges = joint.edge_logprobs_BN(logits, tree, temperature=0.5)
    torch.testing.assert_close(edges.exp(), torch.tensor([[0.36, 0.16]]) / 0.52)


def test_marginals_are_sums_over_the_other_criteria() -> None:
    p_112 = torch.rand(2, 3 * 3 * 3, dtype=torch.double)
    cube = (p_112 / p_112.sum(-1, keepdim=True)).view(2, 3, 3, 3)
    found = joint.marginals_BCL(p_112.log(), criteria=3, levels=3)
    torch.testing.assert_close(found[:, 0], cube.sum((2, 3)))
    torch.testing.assert_close(found[:, 1], cube.sum((1, 3)))
    torch.testing.assert_close(found[:, 2], cube.sum((1, 2)))


def test_what_each_token_sees() -> None:
    tree = joint.build_tree([[[1, 2]], [[1, 3]], [[4, 5]]])  # inner nodes: 1 and 4
    seen = joint.attention_BQK([1, 3], tree, prefix=2)[:, :, :].int().tolist()
    assert seen[0] == [  # prefix 2 | prompt 3, two of them padding | tree 2
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 1, 0, 1],
    ]
    assert seen[1][2] == [1, 1, 1, 1, 1, 0, 0]
    assert joint.positions_BQ([1, 3], tree, prefix=2).tolist() == [[2, 2, 2, 3, 3], [2, 3, 4, 5, 5]]


@given(st.integers(1, 3), st.integers(2, 5), st.integers(0, 1000))
def test_a_tree_gives_what_enumeration_gives(criteria: int, levels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    answers = joint.answer_levels(criteria, levels)
    tree = joint.build_tree([[list(answer)] for answer in answers])
    logits = torch.randn(1, 1 + tree.inner, levels + 2, generator=generator)
    found = joint.answer_logprobs_BA(joint.edge_logprobs_BN(logits, tree), tree)[0]
    node = {(): 0} | {
        tuple(tree.tokens[e] for e in joint.path_to(tree, inner)): inner + 1 for inner in range(tree.inner)
    }
    for answer, logprob in zip(answers, found.tolist(), strict=True):
        steps = [logits[0, node[answer[:i]]].log_softmax(-1)[answer[i]].item() for i in range(criteria)]
        assert logprob == pytest.approx(sum(steps), abs=1e-4)


def test_entropy_share_of_a_uniform_guess_is_one() -> None:
    share = joint.entropy_share_B(torch.stack([torch.zeros(8), torch.tensor([50.0] + [0.0] * 7)]))
    torch.testing.assert_close(share, torch.tensor([1.0, 0.0], dtype=torch.double), atol=1e-6, rtol=0)
