"""The answer tree and its arithmetic, by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from services.teacher.judges import joint, modes


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
    assert joint.entropy_share(torch.zeros(8)) == pytest.approx(1.0)
    assert joint.entropy_share(torch.tensor([50.0] + [0.0] * 7)) == pytest.approx(0.0, abs=1e-6)


def halos(p: torch.Tensor) -> list[float]:
    """Halos of one joint distribution, an axis a criterion."""
    return joint.halos_BC(p.double().log().reshape(1, -1), p.ndim, p.shape[0])[0].tolist()


def halo_by_hand(p: torch.Tensor, own: int) -> float:
    """I(c; others) / H(c), summed cell by cell."""
    table = p.double().movedim(own, 0).flatten(1)
    rows, columns = table.sum(1), table.sum(0)
    information = sum(
        float(table[i, j] * (table[i, j] / (rows[i] * columns[j])).log())
        for i in range(table.shape[0])
        for j in range(table.shape[1])
        if table[i, j] > 0
    )
    entropy = -sum(float(q * q.log()) for q in rows if q > 0)
    return information / entropy


def test_criteria_that_are_independent_have_no_halo() -> None:
    a, b, c = torch.tensor([0.7, 0.3]), torch.tensor([0.2, 0.8]), torch.tensor([0.5, 0.5])
    assert halos(torch.einsum("i,j,k->ijk", a, b, c)) == pytest.approx([0.0] * 3, abs=1e-9)


def test_copies_have_full_halo_and_a_third_of_them_none() -> None:
    p = torch.zeros(3, 3, 3)
    for level, weight in enumerate((0.5, 0.3, 0.2)):
        p[level, level] = weight * torch.tensor([0.1, 0.6, 0.3])  # the third criterion goes its own way
    assert halos(p) == pytest.approx([1.0, 1.0, 0.0], abs=1e-9)


def test_a_halo_may_need_both_others() -> None:
    p = torch.zeros(2, 2, 2)
    for i in range(2):
        for j in range(2):
            p[i, j, i ^ j] = 0.25  # any two are independent, and together they settle the third
    assert halos(p) == pytest.approx([1.0] * 3)


def test_a_criterion_without_entropy_or_without_others_has_halo_zero() -> None:
    p = torch.zeros(2, 2)
    p[1] = torch.tensor([0.4, 0.6])
    assert halos(p) == [0.0, 0.0]
    assert halos(torch.tensor([0.1, 0.2, 0.7])) == [0.0]


@given(st.integers(2, 3), st.integers(2, 4), st.integers(0, 1000), st.floats(0.1, 30))
def test_halo_is_mutual_information_over_entropy(criteria: int, levels: int, seed: int, sharp: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = sharp * torch.randn(levels**criteria, generator=generator, dtype=torch.double)
    p = weights.softmax(0).view([levels] * criteria)
    found = halos(p)
    assert all(0.0 <= share <= 1.0 for share in found)
    entropies = [-(m * m.log()).sum() for m in joint.marginals_BCL(p.log().reshape(1, -1), criteria, levels)[0]]
    for own, entropy in enumerate(entropies):
        if entropy > 1e-6:
            assert found[own] == pytest.approx(halo_by_hand(p, own), abs=1e-6)


def test_draws_split_the_unit_interval_in_proportion() -> None:
    answers = torch.tensor([0.25, 0.0, 0.5]).log()
    drawn = [joint.draw(answers, u) for u in (0.0, 0.2499, 0.25, 0.7499, 0.75, 0.999999)]
    assert drawn == [0, 0, 2, 2, None, None]
    assert joint.draw(torch.tensor([0.0, 1.0]).log(), 0.0) == 1


def test_uniform_numbers_depend_on_seed_and_text_and_fill_the_interval() -> None:
    numbers = [modes.uniform(seed, text) for seed in range(1000) for text in ("a", "b", "fox\ud800")]
    assert len(set(numbers)) == 3000
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert kstest(numbers, "uniform").pvalue > 0.01
    assert modes.uniform(1, "a") == modes.uniform(1, "a")
