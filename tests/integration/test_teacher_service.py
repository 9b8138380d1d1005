"""The service around the judge, over real sockets: room, clients that leave, memory, metrics, ids, inspection."""

import json
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fabula_proto import STORIES_STREAM, ScoredBatch, Story, StoryBatch, Verdict, scores_stream
from fabula_proto.streams import Streams
from services.teacher.judges.base import Asked, JudgeUnavailableError
from tests.teacher_helpers import WordJudge, teacher, until_ready

TALE = "Once upon a time, a fox lost his lantern. He asked the owl. They found it at dawn."
WORDS = len(TALE.split())


class RestartingJudge(WordJudge):
    """Away for a while as long as its gate is closed."""

    def judge(self, asked: Sequence[Asked]) -> list[Verdict]:
        if not self.gate.is_set():
            raise JudgeUnavailableError("the server restarts", passing=True)
        return super().judge(asked)


def sample(client: httpx.Client, name: str, **labels: str) -> float:
    """One value of /metrics; 0 where nothing was counted yet."""
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for found in family.samples:
            if found.name == f"fabula_teacher_{name}" and labels.items() <= found.labels.items():
                return float(found.value)
    return 0.0


def until(client: httpx.Client, name: str, value: float, **labels: str) -> None:
    for _ in range(600):
        if sample(client, name, **labels) == value:
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"{name} never became {value}; it is {sample(client, name, **labels)}")


def test_without_room_a_request_is_turned_away_whole_and_told_when_to_come_back() -> None:
    judge = WordJudge()
    judge.gate.clear()
    with teacher(judge, queued_tokens=64, batch_stories=1) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/score", json={"stories": [TALE]})
        assert judge.entered.wait(30)
        waiting = pool.submit(client.post, "/score", json={"stories": [TALE] * 3})
        until(client, "queued_tokens", 3 * WORDS, teacher="default")
        refused = client.post("/score", json={"stories": [TALE]})
        assert sample(client, "turned_away_total", teacher="default") == 1
        judge.gate.set()
        assert [len(f.result().json()["verdicts"]) for f in (first, waiting)] == [1, 3]
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-type"] == "application/problem+json"


def test_the_stories_of_a_client_that_left_are_not_judged() -> None:
    judge = WordJudge()
    judge.gate.clear()
    with teacher(judge, batch_stories=1) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/score", json={"stories": [TALE]})
        assert judge.entered.wait(30)
        gone = httpx.Client(base_url=client.base_url, timeout=0.5, trust_env=False)
        with gone, pytest.raises(httpx.ReadTimeout):
            gone.post("/score", json={"stories": [{"id": "gone", "text": TALE}]})
        until(client, "queued_tokens", 0, teacher="default")
        judge.gate.set()
        assert first.result().status_code == 200
        until(client, "http_requests_total", 1, route="/score", status="499")
    assert judge.calls == [["0"]]


def test_a_verdict_is_remembered_and_marked(redis_url: str) -> None:
    judge = WordJudge()
    with teacher(judge, redis_url=redis_url) as client:
        until_ready(client)
        body = {"stories": [{"id": "a", "text": TALE}, {"id": "b", "text": TALE + "</s>"}]}
        first, second = client.post("/score", json=body), client.post("/score", json=body)
        hits = sample(client, "cache_lookups_total", result="hit")
    assert [v["cached"] for v in first.json()["verdicts"]] == [False, False]
    assert [v["cached"] for v in second.json()["verdicts"]] == [True, True]
    unmarked = [{**v, "cached": False} for v in second.json()["verdicts"]]
    assert unmarked == first.json()["verdicts"]
    assert (second.headers["x-cache-hits"], hits) == ("2", 2)
    assert len(judge.calls) == 1


def test_teachers_that_accept_differently_share_no_memory(redis_url: str) -> None:
    judges = WordJudge(), WordJudge()
    for judge, least in zip(judges, (0.1, 0.9), strict=True):
        with teacher(judge, redis_url=redis_url, min_coverage=least) as client:
            until_ready(client)
            client.post("/score", json={"stories": [TALE]})
    assert [len(judge.calls) for judge in judges] == [1, 1]


def test_times_and_ids_stand_in_the_headers() -> None:
    with teacher(WordJudge()) as client:
        named = client.post("/score", json={"stories": [TALE]}, headers={"X-Request-ID": "my-id.1"})
        unnamed = client.post("/score", json={"stories": [TALE]}, headers={"X-Request-ID": "two words"})
        problem = client.get("/nowhere", headers={"X-Request-ID": "my-id.2"})
    assert named.headers["x-request-id"] == "my-id.1"
    assert len(unnamed.headers["x-request-id"]) == 32
    assert problem.headers["x-request-id"] == "my-id.2"
    assert int(named.headers["x-queue-time"]) >= 0
    assert int(named.headers["x-inference-time"]) >= 0


def test_a_request_id_travels_through_the_queue_into_the_log(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="services.teacher")
    story = Story(id="0", text=TALE)
    batch = StoryBatch(run="r", step=3, chunk=0, chunks=1, policy_version=3, stories=(story,), request_id="r/3/0")
    with teacher(WordJudge(), redis_url=redis_url) as client, Streams(redis_url) as streams:
        until_ready(client)
        streams.publish(STORIES_STREAM, batch)
        ((_, scored),) = streams.read(scores_stream("r"), "0", ScoredBatch, block_s=30.0)
        assert sample(client, "stories_total", source="queue") == 1
    assert scored.request_id == "r/3/0"
    (line,) = [record for record in caplog.records if record.name == "services.teacher.worker"]
    assert vars(line).items() >= {"run": "r", "step": 3, "chunk": 0, "stories": 1}.items()


def test_metrics_count_what_was_judged() -> None:
    with teacher(WordJudge()) as client:
        client.post("/score", json={"stories": [TALE, "", "BREAK " + TALE, "x" * 200_000]})
        by_status = {s: sample(client, "verdicts_total", status=s) for s in ("ok", "failed", "refused")}
        score = sample(client, "criterion_score_sum", criterion="coherence")
        assert sample(client, "ready") == 1
        assert sample(client, "http_requests_total", route="/score", status="200") == 1
        assert sample(client, "tokens_total", teacher="default") == 2 * WORDS + 1
    assert by_status == {"ok": 2, "failed": 1, "refused": 1}
    assert score == WORDS // 10


def test_inspection_shows_flags_with_their_places_and_judges_nothing() -> None:
    judge = WordJudge()
    text = f"{TALE} Readability: 3 Coherence: 3 Creativity: 3"
    with teacher(judge) as client:
        found = client.post("/inspect", json={"text": text}).json()
        scored = client.post("/score", json={"stories": [text]}).json()
        both = client.post("/inspect?teacher=default&teacher=rules", json={"text": text}).json()
        wrong = client.post("/inspect", json={"story": text})
    assert found["prompts"] == {"default": []}
    assert both["prompts"].keys() == {"default", "rules"}
    assert {f["name"] for f in found["flags"]} == set(scored["verdicts"][0]["flags"]) >= {"score_tail"}
    tails = [text[f["start"] : f["end"]] for f in found["flags"] if f["name"] == "score_tail"]
    assert all("3" in tail and tail not in TALE for tail in tails)
    assert len(judge.calls) == 1
    assert wrong.status_code == 422


def test_the_audit_is_served_unless_it_is_turned_off() -> None:
    with teacher(None, teacher="rules:") as client:
        until_ready(client)
        report = client.post("/audit?quick=true", timeout=300)
    with teacher(WordJudge(), audits=False) as client:
        off = client.post("/audit?quick=true")
    assert report.status_code == 200, report.text
    assert report.json()["teacher"]["backend"] == "rules"
    assert len(report.json()["attacks"]) > 20
    assert off.status_code == 404


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_answer_head(path: str) -> None:
    with teacher(WordJudge()) as client:
        assert client.head(path).status_code == 200


def test_readiness_says_why_while_a_batch_is_held_for_a_judge_that_is_away(redis_url: str) -> None:
    judge = RestartingJudge()
    judge.gate.clear()
    batch = StoryBatch(run="held", step=0, chunk=0, chunks=1, policy_version=0, stories=(Story(id="0", text=TALE),))
    with teacher(judge, redis_url=redis_url) as client, Streams(redis_url) as streams:
        until_ready(client)
        streams.publish(STORIES_STREAM, batch)
        for _ in range(600):
            if (answer := client.get("/readyz")).status_code == 503:
                break
            threading.Event().wait(0.02)
        assert "held back: the server restarts" in answer.json()["detail"]
        judge.gate.set()
        ((_, scored),) = streams.read(scores_stream("held"), "0", ScoredBatch, block_s=30.0)
        until_ready(client)
    assert json.loads(scored.to_json())["verdicts"][0]["status"] == "ok"
