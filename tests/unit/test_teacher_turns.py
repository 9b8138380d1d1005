"""Which stories the batcher takes next: fair between tickets, and little padding."""

import random
from itertools import chain, count

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.teacher.batcher.turns import MOST_PADDED, SEATS, Turns, choose

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=40)


def padded(lengths: list[int]) -> int:
    return max(lengths) * len(lengths)


def drained(turns: Turns[str], lengths: dict[str, list[int]]) -> list[list[int]]:
    """The lengths of the stories in each batch until nothing waits."""
    batches = []
    while batch := turns.take():
        batches.append([lengths[key][position] for key, position in batch])
    return batches


@settings(deadline=None)
@given(LENGTHS, st.integers(0, 8), st.integers(1, 500), st.integers(1, 10))
def test_a_batch_is_within_its_budget_has_the_first_story_and_is_mostly_stories(
    lengths: list[int], seats: int, tokens: int, stories: int
) -> None:
    chosen = choose(lengths, seats, tokens, stories)
    batch = [lengths[i] for i in chosen]
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))
    assert len(batch) <= stories
    assert padded(batch) <= tokens or len(batch) == 1
    assert padded(batch) <= MOST_PADDED * sum(batch)


def test_a_story_beyond_the_budget_goes_alone() -> None:
    assert choose([900, 10, 10, 10], 1, 100, 8) == [0]
    assert choose([10, 900, 10, 10], 2, 100, 8) == [0, 2, 3]


def test_nothing_waiting_is_no_batch() -> None:
    turns: Turns[str] = Turns(100, 4)
    assert turns.take() == []
    assert turns.drop("nobody") == 0


def test_the_rest_of_a_batch_is_nearest_in_length_and_the_older_first() -> None:
    assert choose([50, 90, 49, 10, 51, 48], 1, 1000, 4) == [0, 2, 4, 5]
    assert choose([50] * 6, 1, 1000, 3) == [0, 1, 2]
    assert choose([50, 60, 70, 60], 1, 1000, 2) == [0, 1]


def test_a_story_much_longer_than_many_waits_for_its_like() -> None:
    """One of 500 tokens would make rows of 500 out of the 90s; its own batch is cheaper."""
    turns: Turns[str] = Turns(8192, 64)
    lengths = {"queue": [90] * 40 + [500]}
    turns.add("queue", lengths["queue"])
    assert [padded(batch) for batch in drained(turns, lengths)] == [3600, 500]


def test_one_story_over_http_gets_into_the_next_batch_beside_the_queues() -> None:
    rng = random.Random(1)
    for length in (1, 30, 90, 91, 1000, 4000):
        turns: Turns[str] = Turns(8192, 64)
        turns.add("queue", [rng.randint(60, 90) for _ in range(360)])
        turns.take()
        turns.add("http", [length])
        assert ("http", 0) in turns.take(), length


def test_who_comes_while_a_batch_runs_stands_in_front_of_those_who_are_in_it() -> None:
    turns: Turns[str] = Turns(1000, 1)
    turns.add("big", [10, 10, 10])
    assert turns.take() == [("big", 0)]
    turns.add("small", [10])
    assert turns.take() == [("small", 0)]
    assert turns.take() == [("big", 1)]


def test_a_ticket_whose_first_story_did_not_fit_keeps_its_place() -> None:
    turns: Turns[str] = Turns(100, 6)
    turns.add("a", [1, 1, 1])
    turns.add("b", [51, 1])  # two rows of 51 are too many
    assert turns.take() == [("a", 0), ("a", 1), ("b", 1), ("a", 2)]
    turns.add("c", [60])
    assert turns.take() == [("b", 0)]


def test_the_first_tickets_have_a_seat_and_the_next_ones_in_the_batch_after() -> None:
    turns: Turns[int] = Turns(10_000, SEATS)
    for key in range(3 * SEATS):
        turns.add(key, [10 + key] * 50)
    batches = [[key for key, _ in turns.take()] for _ in range(4)]
    assert batches[:3] == [list(range(first, first + SEATS)) for first in range(0, 3 * SEATS, SEATS)]
    assert batches[3] == batches[0]


def test_a_batch_may_be_asked_to_be_small() -> None:
    turns: Turns[str] = Turns(10_000, 64)
    turns.add("a", [10] * 8)
    assert len(turns.take(at_most=3)) == 3
    assert turns.stories == 5
    assert len(turns.take(at_most=100)) == 5


@settings(max_examples=50, deadline=None)
@given(st.lists(LENGTHS, min_size=1, max_size=6))
def test_every_story_is_taken_once(tickets: list[list[int]]) -> None:
    turns: Turns[str] = Turns(1000, 8)
    lengths = {f"ticket{i}": tokens for i, tokens in enumerate(tickets)}
    for key, tokens in lengths.items():
        turns.add(key, tokens)
    batches = drained(turns, lengths)
    assert sorted(chain(*batches)) == sorted(chain(*tickets))
    assert turns.stories == 0


def test_padding_is_a_fraction_of_that_in_arrival_order() -> None:
    """Lengths with a long tail on the right, as stories have; against batches of 16 in the order of arrival."""
    rng = random.Random(7)
    lengths = {"queue": [min(1000, int(rng.lognormvariate(5, 0.5)) + 1) for _ in range(360)]}
    turns: Turns[str] = Turns(8192, 64)
    turns.add("queue", lengths["queue"])
    told = sum(lengths["queue"])
    ours = sum(padded(batch) for batch in drained(turns, lengths)) - told
    arrival = sum(padded(lengths["queue"][i : i + 16]) for i in range(0, 360, 16)) - told
    assert 4 * ours < arrival


class Line(RuleBasedStateMachine):
    """However tickets come, leave and are served: nobody waits longer than the line was when it joined its end."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: Turns[int] = Turns(100, 6)
        self.waiting: dict[int, dict[int, int]] = {}  # ticket -> position -> tokens
        self.patience: dict[int, int] = {}  # ticket -> batches within which it must have a story taken
        self.served: list[int] = []
        self.names = count()

    def joins_the_end(self, key: int) -> None:
        self.patience[key] = len(self.waiting)

    @rule(tokens=st.lists(st.integers(1, 120), min_size=1, max_size=12))
    def comes(self, tokens: list[int]) -> None:
        key = next(self.names)
        self.waiting[key] = dict(enumerate(tokens))
        self.turns.add(key, tokens)
        self.joins_the_end(key)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.turns.drop(key) == sum(self.waiting.pop(key).values())

    @precondition(lambda self: self.waiting)
    @rule(at_most=st.one_of(st.none(), st.integers(1, 6)))
    def a_batch_begins(self, at_most: int | None) -> None:
        for key in self.served:
            self.joins_the_end(key)
        batch = self.turns.take(at_most)
        assert batch
        firsts = {key: min(stories) for key, stories in self.waiting.items()}
        self.served = [key for key, position in batch if position == firsts[key]]
        for key, position in batch:
            del self.waiting[key][position]  # it waited, and is taken once
        self.waiting = {key: stories for key, stories in self.waiting.items() if stories}
        for key in self.waiting.keys() - set(self.served):
            self.patience[key] -= 1
            assert self.patience[key] > 0, f"the first story of ticket {key} was passed over"

    @invariant()
    def all_are_known(self) -> None:
        assert self.turns.stories == sum(len(stories) for stories in self.waiting.values())


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
