"""The engine computes what the model computes, and holds to constraints."""

import pytest
import torch

from tests.wire.constraint import BadGrammarError, Constraint
from tests.wire.engine import Engine, Sampling
from tests.wire.gbnf import gbnf_constraint
from tests.wire.model import make_judge_folder

ANSWERS = {f"{a} {b} {c}" for a in range(4) for b in range(4) for c in range(4)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(make_judge_folder(tmp_path_factory.mktemp("models") / "judge"))


def test_logprobs_are_the_models_whatever_was_asked_before(engine: Engine) -> None:
    ids = engine.encode("The fox ran home, and the owl asked him why.", add_special=True)
    for prompt in (ids, ids[:5], [*ids, 20], [*ids[:7], 30, 31], ids[:1]):
        with torch.inference_mode():
            expected = engine.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        torch.testing.assert_close(engine.logprobs(prompt), expected, atol=1e-5, rtol=0)


def test_bytes_of_tokens_spell_the_text(engine: Engine) -> None:
    text = "The fox 🦊 ran, naïve as ever.\n<|eot_id|>"
    ids = engine.encode(text, add_special=False)
    assert b"".join(map(engine.bytes_of, ids)).decode() == text
    assert engine.text(ids) == text.removesuffix("<|eot_id|>")
    plain = engine.encode(text, add_special=False, parse_special=False)
    assert engine.special_ids.isdisjoint(plain)
    assert engine.text(plain) == text


def test_a_seed_decides_what_is_drawn_and_a_temperature_how_boldly(engine: Engine) -> None:
    ids = engine.encode("The fox", add_special=True)

    def drawn(seed: int, temperature: float) -> list[int]:
        steps = engine.write(ids, 4, Sampling(temperature=temperature, seed=seed, ignore_end=True))
        return [step.token for step in steps]

    assert drawn(1, 1.0) == drawn(1, 1.0)
    assert len({tuple(drawn(seed, 1.5)) for seed in range(8)}) > 4
    assert drawn(1, 0.0) == drawn(2, 0.0) == drawn(3, 0.01)


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("[0-3] [0-3] [0-3]"),
        gbnf_constraint('root ::= digit " " digit " " digit\ndigit ::= [0-3]'),
        gbnf_constraint('root ::= ("0" | "1" | "2" | "3") (" " [0-3]){2} # three\n'),
    ],
)
def test_an_answer_matches_its_constraint(engine: Engine, constraint: Constraint) -> None:
    ids = engine.encode("Once upon a time", add_special=True)
    found = set()
    for seed in range(12):
        steps = engine.write(ids, 8, Sampling(temperature=2.0, seed=seed), constraint)
        assert steps[-1].token == engine.end_id
        found.add(engine.text([step.token for step in steps]))
    assert found <= ANSWERS
    assert len(found) > 6


def test_a_schemas_json_comes_out(engine: Engine) -> None:
    level = {"type": "integer", "minimum": 0, "maximum": 3}
    schema = {"type": "object", "properties": {"readability": level, "tone": {"enum": ["warm", "cold"]}}}
    constraint = Constraint.json_schema(schema)
    for text in ('{"readability": 3, "tone": "warm"}', '{"readability":0,"tone":"cold"}'):
        assert constraint.complete(text)
    for text in ('{"readability": 4, "tone": "warm"}', '{"tone": "warm"}', "3"):
        assert not constraint.complete(text)
    assert Constraint.json_schema({"enum": [0, 1, 2, 3]}).complete("2")


@pytest.mark.parametrize("grammar", ["", "leaf ::= [0-3]", "root ::= [0-3", "root ::= other", 'root ::= "a" root'])
def test_a_broken_grammar_is_refused(grammar: str) -> None:
    with pytest.raises(BadGrammarError):
        gbnf_constraint(grammar)


def test_the_stages_of_a_step(engine: Engine) -> None:
    ids = engine.encode("Once upon a time", add_special=True)
    bold = Sampling(temperature=0.5, seed=3, top_k=2)
    (step,) = engine.write(ids, 1, bold, Constraint("[0-3]"))
    torch.testing.assert_close(step.raw, engine.logprobs(ids))
    assert int((step.constrained > -torch.inf).sum()) == 4
    assert int((step.final > -torch.inf).sum()) == 2
    best = step.raw[20:24].topk(2).values
    torch.testing.assert_close(step.final.topk(2).values, (best / 0.5).log_softmax(-1))
    (last,) = engine.write(ids, 1, bold, Constraint("[0-3]"), grammar_last=True)
    assert engine.piece(last.token) in "0123"
