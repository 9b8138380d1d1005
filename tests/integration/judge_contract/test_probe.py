"""What the probe finds before the first story: a server that would not do what the judge relies on is refused."""

import pytest

from services.teacher.judges.base import JudgeUnavailableError, Noted, judge_stories
from services.teacher.judges.build import build_judge
from services.teacher.spec import MODES, SERVERS
from tests.integration.judge_contract.conftest import Case, Judges
from tests.integration.judge_contract.test_failures import STORIES
from tests.wire.bench import REMOTE, RUBRIC, Bench, case_id
from tests.wire.controls import Controls
from tests.wire.serving import WireServer
from tests.wire.sglang import create_sglang

# What is asked in the mode that each backend takes if none is named.
USUAL = [(backend, MODES[backend][0]) for backend in SERVERS]
# They template and tokenise themselves: nobody outside knows how many tokens a prompt should have.
CHAT_SERVERS = ("ollama", "openai")
# Draws are held to digits where the API has a way to ask for that which every server behind it knows.
CONSTRAINED = [case for case in REMOTE if case[1] == "sample" and case[0] != "openai"]


def refusal(bench: Bench, case: Case, **wrong: bool) -> str | None:
    """Why no judge is built on a server that does something wrong; None where it is built all the same."""
    with bench.server(case[0]) as server:
        for name, value in wrong.items():
            setattr(server.controls, name, value)
        try:
            judge = build_judge(bench.spec(*case, server), RUBRIC)
        except JudgeUnavailableError as error:
            return "it may pass: " + str(error) if error.passing else str(error)
        judge.close()
        return None


@pytest.mark.parametrize("case", USUAL, ids=case_id)
def test_no_logprobs_are_found_out(bench: Bench, case: Case) -> None:
    reason = refusal(bench, case, drop_logprobs=True)
    assert reason is not None
    assert reason.startswith(f"teacher '{case[0]}:")
    assert "fails its probe" in reason


@pytest.mark.parametrize("case", [c for c in USUAL if c[0] not in CHAT_SERVERS], ids=case_id)
def test_a_second_beginning_token_is_found_out(bench: Bench, case: Case) -> None:
    """A server that adds one behind the judge's back is told by the number of tokens that it says it read."""
    reason = refusal(bench, case, double_begin=True)
    assert reason is not None
    assert "token" in reason


@pytest.mark.parametrize("case", CONSTRAINED, ids=case_id)
def test_a_constraint_that_does_not_bite_is_found_out(bench: Bench, case: Case) -> None:
    reason = refusal(bench, case, ignore_constraint=True)
    assert reason is not None
    assert "constraint" in reason


@pytest.mark.parametrize("case", [*USUAL, ("openai", "sample")], ids=case_id)
def test_who_needs_no_constraint_does_without(bench: Bench, case: Case, judges: Judges) -> None:
    with bench.server(case[0]) as server:
        server.controls.ignore_constraint = True
        with bench.judge(*case, server) as judge:
            found = judge_stories(judge, STORIES[:1])
    expected = judge_stories(judges.of(case).judge, STORIES[:1])
    assert [v.total for v in found] == pytest.approx([v.total for v in expected])


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A model that would sooner write anything than a digit."""
    return Bench.at(tmp_path_factory.mktemp("models") / "stranger", lift=0.0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A model whose tokenizer puts no beginning token before a text; its template does."""
    return Bench.at(tmp_path_factory.mktemp("models") / "plain", begins_each_text=False)


@pytest.mark.parametrize("backend", SERVERS)
def test_digits_that_are_not_among_the_best_are_found_out(stranger: Bench, backend: str) -> None:
    """Servers that give named tokens' probabilities show that the model hardly writes digits; the others cannot."""
    mode = "independent"
    reason = refusal(stranger, (backend, mode))
    if backend in ("vllm", "sglang", "llamacpp"):
        assert reason is None
        with stranger.judge(backend, mode) as judge:
            (verdict,) = judge_stories(judge, STORIES[:1])
        assert verdict.coverage is None
        assert "of its probability to valid answers" in (verdict.reason or "")
    else:
        assert reason is not None
        assert "digit" in reason


def test_a_server_that_obeys_no_seed_is_noted(bench: Bench) -> None:
    controls = Controls()
    server = WireServer(create_sglang(bench.engine, controls), controls)
    with server, bench.judge("sglang", "sample", server) as judge:
        assert isinstance(judge, Noted)
        assert any("seed" in note for note in judge.notes)


@pytest.mark.parametrize("case", USUAL, ids=case_id)
def test_the_beginning_token_is_there_once_whoever_puts_it(case: Case, plain: Bench) -> None:
    """A template with a beginning token, and a tokenizer that puts none before a text: none is lost, none doubled."""
    with plain.server(case[0]) as server, plain.judge(*case, server) as judge:
        server.controls.prompts.clear()
        judge_stories(judge, STORIES[:1])
        assert {tuple(ids).count(plain.engine.begin_id) for ids in server.controls.prompts} == {1}
