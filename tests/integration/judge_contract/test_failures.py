"""What a judge behind a socket does when its server is down, slow, full, broken, or asks for a key."""

from pathlib import Path

import pytest

from fabula_proto import Story, VerdictStatus
from services.teacher.judges.base import JudgeUnavailableError, judge_stories
from services.teacher.judges.build import build_judge
from services.teacher.spec import MODES, SERVERS
from tests.integration.judge_contract.conftest import Case, Served
from tests.wire.bench import RUBRIC, Bench
from tests.wire.openai_chat import rate_limited

STORIES = (
    Story(id="a", text="The fox ran home, and he was glad."),
    Story(id="b", text="A king lost his GARBAGE crown. He asked the owl. They found it at dawn."),
    Story(id="c", text="Two ants met a cloud, and it rained tea for a week."),
)
KEY = "sk-contract-1234567890"
LISTENS_BEFORE_IT_HAS_LOADED = ("tgi", "sglang", "llamacpp", "ollama", "openai")


@pytest.fixture(params=SERVERS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def case(backend: str) -> Case:
    return backend, MODES[backend][0]


def totals(served: Served, stories: tuple[Story, ...] = STORIES[:1]) -> list[float | None]:
    return [verdict.total for verdict in judge_stories(served.judge, stories)]


def test_a_server_that_is_down_may_come_up(bench: Bench, case: Case) -> None:
    server = bench.server(case[0])
    with pytest.raises(JudgeUnavailableError) as caught:
        build_judge(bench.spec(*case, server), RUBRIC)
    assert caught.value.passing
    assert server.url in str(caught.value)


def test_a_server_that_is_loading_may_be_ready_later(bench: Bench, case: Case) -> None:
    if case[0] not in LISTENS_BEFORE_IT_HAS_LOADED:
        pytest.skip(f"{case[0]} does not listen while it loads")
    with bench.server(case[0]) as server:
        server.controls.loading = True
        with pytest.raises(JudgeUnavailableError) as caught:
            build_judge(bench.spec(*case, server, server_timeout_s=5.0), RUBRIC)
        assert caught.value.passing


def test_a_server_that_wants_a_key_gets_it_or_says_how(
    bench: Bench, case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with bench.server(case[0]) as server:
        server.controls.api_key = KEY
        monkeypatch.setenv("CONTRACT_KEY", "sk-wrong-0987654321")
        if case[0] == "ollama":
            server.controls.fail(100, 401, body=b'{"error": "unauthorized"}')
        with pytest.raises(JudgeUnavailableError) as caught:
            build_judge(bench.spec(*case, server, api_key_env="CONTRACT_KEY"), RUBRIC)
        assert not caught.value.passing
        assert "CONTRACT_KEY" in str(caught.value)
        assert "0987654321" not in str(caught.value)
        server.controls.failures.clear()
        monkeypatch.setenv("CONTRACT_KEY", KEY)
        with bench.judge(*case, server, api_key_env="CONTRACT_KEY") as judge:
            assert judge_stories(judge, STORIES[:1])[0].status is VerdictStatus.OK
        assert server.controls.requests[-1].headers["authorization"] == f"Bearer {KEY}"
        monkeypatch.delenv("CONTRACT_KEY")
        monkeypatch.setenv("CONTRACT_KEY_FILE", str(tmp_path / "key"))
        with pytest.raises(JudgeUnavailableError, match=r"CONTRACT_KEY_FILE=.* cannot be read"):
            build_judge(bench.spec(*case, server, api_key_env="CONTRACT_KEY"), RUBRIC)
        (tmp_path / "key").write_text(f"{KEY}\n", encoding="utf-8")
        with bench.judge(*case, server, api_key_env="CONTRACT_KEY"):
            assert server.controls.requests[-1].headers["authorization"] == f"Bearer {KEY}"


def test_nobody_is_sent_a_key_that_was_not_meant_for_him(
    bench: Bench, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    monkeypatch.setenv("HF_TOKEN", "hf-tgi")
    with bench.server(case[0]) as server, bench.judge(*case, server):
        sent = {request.headers.get("authorization") for request in server.controls.requests}
    assert sent == {{"openai": "Bearer sk-openai", "tgi": "Bearer hf-tgi"}.get(case[0])}


def test_a_server_that_dies_and_comes_back(served: Served) -> None:
    before = totals(served)
    served.server.stop()
    with pytest.raises(JudgeUnavailableError) as caught:
        judge_stories(served.judge, STORIES[:1])
    assert caught.value.passing
    served.server.start()
    assert totals(served) == pytest.approx(before)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_full_is_asked_again(served: Served, backend: str, status: int) -> None:
    before = totals(served)
    if backend == "openai" and status == 429:
        served.server.controls.fail(2, **rate_limited())
    else:
        served.server.controls.fail(2, status, body=b'{"error": "busy"}', retry_after="0")
    assert totals(served) == pytest.approx(before)
    assert served.server.controls.failures == []


def test_an_answer_that_breaks_off_is_asked_for_again(served: Served) -> None:
    before = totals(served)
    served.server.controls.hang_ups = 1
    assert totals(served) == pytest.approx(before)
    assert served.server.controls.hang_ups == 0


def test_garbage_for_one_story_fails_it_alone(served: Served) -> None:
    before = totals(served, STORIES)
    served.server.controls.garbage_word = "GARBAGE"
    verdicts = judge_stories(served.judge, STORIES)
    assert [v.status for v in verdicts] == [VerdictStatus.OK, VerdictStatus.FAILED, VerdictStatus.OK]
    assert verdicts[1].reason
    assert [verdicts[0].total, verdicts[2].total] == pytest.approx([before[0], before[2]])


def test_answers_without_logprobs_are_no_numbers(served: Served) -> None:
    served.server.controls.drop_logprobs = True
    try:
        verdicts = judge_stories(served.judge, STORIES[:2])
    except JudgeUnavailableError:
        return
    assert {v.status for v in verdicts} == {VerdictStatus.FAILED}


@pytest.mark.parametrize("backend", ["llamacpp", "ollama"])
def test_a_server_that_never_answers_is_not_waited_for_forever(bench: Bench, case: Case) -> None:
    with bench.server(case[0]) as server, bench.judge(*case, server, server_timeout_s=5.0) as judge:
        server.controls.gate.clear()
        with pytest.raises(JudgeUnavailableError) as caught:
            judge_stories(judge, STORIES[:1])
        assert caught.value.passing


def test_no_more_is_asked_at_once_than_is_allowed(bench: Bench, case: Case) -> None:
    with bench.server(case[0]) as server, bench.judge(*case, server, server_concurrency=2) as judge:
        assert {v.status for v in judge_stories(judge, STORIES)} == {VerdictStatus.OK}
        assert 1 <= server.controls.busiest <= 2


def test_a_model_that_the_server_does_not_hold_is_named(bench: Bench, backend: str) -> None:
    if backend not in ("vllm", "ollama", "openai"):
        pytest.skip(f"{backend} serves one model, and no name is asked for")
    with bench.server(backend) as server:
        mode = MODES[backend][0]
        spec = bench.spec(backend, mode, server)
        other = spec.model_copy(update={"judge": spec.judge.partition("#")[0] + "#absent"})
        with pytest.raises(JudgeUnavailableError, match="absent") as caught:
            build_judge(other, RUBRIC)
        assert not caught.value.passing
