"""Packing: every sequence's tokens see exactly the tokens before them, and each beginning stands once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.evaluator.batching import ATTENTION_SCALE, SHORT_ROW, Encoded, trees
from services.evaluator.engine import visible

TOKENS = st.lists(st.integers(0, 2), min_size=2, max_size=12).map(tuple)
SEQUENCES = st.lists(TOKENS.map(lambda ids: Encoded(ids, (len(ids) - 1,))), min_size=1, max_size=25)


@settings(deadline=None)
@given(SEQUENCES, st.integers(1, 100))
def test_each_token_sees_its_own_beginning_and_nothing_else(sequences: list[Encoded], budget: int) -> None:
    packed = trees(sequences, budget)
    assert sorted(i for tree in packed for i in tree.members) == list(range(len(sequences)))
    for tree in packed:
        width = len(tree.ids) + 3
        seen_TT = visible(tree, width)
        for index, path in zip(tree.members, tree.paths, strict=True):
            assert tuple(tree.ids[node] for node in path) == sequences[index].ids[:-1]
            assert [tree.depths[node] for node in path] == list(range(len(path)))
            for k, node in enumerate(path):
                assert set(seen_TT[node].nonzero().flatten().tolist()) == set(path[: k + 1])
        assert seen_TT[len(tree.ids) :].nonzero().tolist() == [[i, i + len(tree.ids)] for i in range(3)]


@settings(deadline=None)
@given(SEQUENCES, st.integers(1, 100))
def test_trees_hold_the_budget_and_each_beginning_once(sequences: list[Encoded], budget: int) -> None:
    for tree in trees(sequences, budget):
        inputs = [sequences[i].ids[:-1] for i in tree.members]
        assert len(tree.ids) == len({ids[:n] for ids in inputs for n in range(1, len(ids) + 1)})
        assert len(tree.ids) <= max(budget, *(len(ids) for ids in inputs))


def test_long_beginnings_are_shared_and_long_strangers_are_not() -> None:
    story = tuple(range(150))
    options = [Encoded((*story, 200 + i, 5, 6), (150, 151, 152)) for i in range(5)]
    stranger = Encoded(tuple(range(300, 450)), (149,))
    packed = trees([options[0], stranger, *options[1:]], 1024)
    assert [sorted(tree.members) for tree in packed] == [[0, 2, 3, 4, 5], [1]]
    assert len(packed[0].ids) == 150 + 5 * 2


def test_a_row_grows_only_while_that_saves_time() -> None:
    """Sentences that begin with the same word: long rows cost more attention than one token is worth."""
    sentences = [Encoded((1, *(100 * i + k for k in range(2, 20))), (18,)) for i in range(1, 40)]
    packed = trees(sentences, 1024)
    assert max(len(tree.ids) for tree in packed) <= max(SHORT_ROW, ATTENTION_SCALE // (2 * 17)) + 17
    assert len(packed) > 1
