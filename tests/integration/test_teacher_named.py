"""Teachers by name over a real socket: one, several, none such; swapped for a run; a file that changes."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from fabula_proto import STORIES_STREAM, ScoredBatch, Story, StoryBatch, scores_stream
from fabula_proto.streams import Streams
from tests.teacher_helpers import WordJudge, teacher, until_ready

TALE = "Once upon a time, a fox lost his lantern. He asked the owl. They found it at dawn."


def score(client: httpx.Client, path: str = "/score", **body: object) -> httpx.Response:
    return client.post(path, json={"stories": [TALE], **body})


def total(response: httpx.Response) -> float:
    assert response.status_code == 200, response.text
    return float(response.json()["verdicts"][0]["total"])


def teachers_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "teachers.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_one_by_name_and_several_as_an_ensemble() -> None:
    with teacher(WordJudge()) as client:
        words, rules = score(client), score(client, "/score?teacher=rules")
        both = score(client, teachers=["default", "rules"])
        same = score(client, "/score?teacher=default&teacher=rules")
    assert [r.json()["teacher"]["backend"] for r in (words, rules, both)] == ["words", "rules", "ensemble"]
    assert total(both) == pytest.approx((total(words) + total(rules)) / 2)
    verdict = both.json()["verdicts"][0]
    assert verdict["members"] == {"default": total(words), "rules": total(rules)}
    means = [r.json()["verdicts"][0]["criteria"]["coherence"]["mean"] for r in (words, rules)]
    assert verdict["criteria"]["coherence"]["disagreement"] == pytest.approx(abs(means[0] - means[1]) / 2)
    assert both.json()["members"]["rules"] == rules.json()["teacher"]
    assert same.json() == both.json()
    assert words.json()["members"] == {}


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/score?teacher=nobody", {}, 404, "no teacher has the name 'nobody'; there are default, rules"),
        ("/score", {"teachers": ["nobody"]}, 404, "no teacher has the name 'nobody'"),
        ("/score?teacher=rules", {"teachers": ["default"]}, 422, "name teachers in one of them"),
        ("/score", {"teachers": [""]}, 422, "at least 1 character"),
        ("/score", {"teachers": "rules"}, 422, "teachers"),
        ("/score?teachers=rules", {}, 422, "the address asks for teachers, and only teacher can be asked for there"),
    ],
)
def test_names_that_do_not_work(path: str, body: dict[str, object], status: int, says: str) -> None:
    with teacher(WordJudge()) as client:
        answer = score(client, path, **body)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_the_file_may_change_while_the_teacher_serves(tmp_path: Path) -> None:
    path = teachers_file(tmp_path, "teachers: {one: {judge: 'rules:'}}")
    with teacher(WordJudge(), teachers_file=path) as client:
        assert score(client, "/score?teacher=one").status_code == 200
        assert score(client, "/score?teacher=two").status_code == 404
        rewrite(path, "teachers: {two: {judge: 'rules:'}, both: {ensemble: [two, default]}}")
        assert score(client, "/score?teacher=one").status_code == 404
        assert score(client, "/score?teacher=both").json()["verdicts"][0]["members"].keys() == {"two", "default"}
        rewrite(path, "teachers: {two: {judge: 'rulez:'}}")
        assert score(client, "/score?teacher=two").status_code == 200, "a broken file changes nothing"
        listed = client.get("/teachers").json()
    assert "rulez" in listed["problem"]
    assert {t["name"]: t["state"] for t in listed["teachers"]} == {"default": "ready", "rules": "idle", "two": "ready"}


def rewrite(path: str, text: str) -> None:
    """Write, and make sure that the file's time differs, whatever the clock's grain."""
    before = os.stat(path).st_mtime_ns
    Path(path).write_text(text, encoding="utf-8")
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


def test_a_named_teacher_that_cannot_be_had_leaves_the_others_alone(tmp_path: Path) -> None:
    path = teachers_file(tmp_path, f"teachers: {{gone: {{judge: 'transformers:{tmp_path}/none'}}}}")
    with teacher(WordJudge(), teachers_file=path) as client:
        answer = score(client, "/score?teacher=gone")
        while "is being built" in answer.json()["detail"]:
            answer = score(client, "/score?teacher=gone")
        assert client.get("/readyz").status_code == 200
        assert score(client).status_code == 200
    assert answer.status_code == 503
    assert "has no config.json" in answer.json()["detail"]


def batch(step: int) -> StoryBatch:
    story = Story(id=f"{step}-0", text=TALE)
    return StoryBatch(
        run="tale", step=step, chunk=0, chunks=1, policy_version=step, stories=(story,), request_id=f"tale/{step}/0"
    )


def judged(streams: Streams, step: int) -> ScoredBatch:
    """Ask for one batch over the queue, and wait for its answer."""
    streams.publish(STORIES_STREAM, batch(step))
    for _ in range(60):
        for _entry, answer in streams.read(scores_stream("tale"), "0", ScoredBatch, block_s=1.0):
            if answer.step == step:
                return answer
    raise AssertionError(f"no answer to step {step}")


def test_a_run_is_put_on_another_teacher_by_one_call(redis_url: str) -> None:
    with teacher(WordJudge(), redis_url=redis_url) as client, Streams(redis_url) as streams:
        until_ready(client)
        first = judged(streams, 0)
        put = client.put("/runs/tale/teachers", json={"teachers": ["rules"]})
        second = judged(streams, 1)
        both = client.put("/runs/tale/teachers", json={"teachers": ["rules", "default"]})
        third = judged(streams, 2)
        assert client.get("/runs/tale/teachers").json() == both.json()
        back = client.delete("/runs/tale/teachers")
        fourth = judged(streams, 3)
    assert [a.teacher.backend for a in (first, second, third, fourth)] == ["words", "rules", "ensemble", "words"]
    assert put.json() == {"run": "tale", "teachers": ["rules"], "identity": second.teacher.model_dump()}
    assert both.json()["identity"] == third.teacher.model_dump()
    assert back.json()["teachers"] == []
    assert second.request_id == "tale/1/0"


def test_another_teacher_of_the_same_queue_follows_and_so_does_one_started_later(redis_url: str) -> None:
    with teacher(WordJudge(), redis_url=redis_url) as client:
        until_ready(client)
        assert client.put("/runs/tale/teachers", json={"teachers": ["rules"]}).status_code == 200
    with teacher(WordJudge(), redis_url=redis_url) as client, Streams(redis_url) as streams:
        until_ready(client)
        assert judged(streams, 0).teacher.backend == "rules"


def test_a_choice_that_cannot_be_had_changes_nothing(redis_url: str) -> None:
    with teacher(WordJudge(), redis_url=redis_url) as client:
        until_ready(client)
        refused = client.put("/runs/tale/teachers", json={"teachers": ["nobody"]})
        assert client.get("/runs/tale/teachers").json()["teachers"] == []
    assert refused.status_code == 404


def test_without_a_queue_there_is_no_run_to_put() -> None:
    with teacher(WordJudge()) as client:
        answer = client.put("/runs/tale/teachers", json={"teachers": ["rules"]})
    assert answer.status_code == 409
    assert "set FABULA_REDIS_URL" in answer.json()["detail"]


def test_a_swap_to_a_teacher_that_is_away_says_so_and_changes_nothing(redis_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    path = teachers_file(tmp_path, f"teachers: {{away: {{judge: 'llamacpp:http://127.0.0.1:{port}'}}}}")
    with teacher(WordJudge(), redis_url=redis_url, teachers_file=path) as client:
        until_ready(client)
        assert client.put("/runs/tale/teachers", json={"teachers": ["rules"]}).status_code == 200
        answers = [client.put("/runs/tale/teachers", json={"teachers": ["away"]}) for _ in range(2)]
        assert client.get("/runs/tale/teachers").json()["teachers"] == ["rules"]
    assert [a.status_code for a in answers] == [503, 503]
    assert str(port) in answers[1].json()["detail"]
    assert "retry-after" in answers[1].headers


def test_many_who_wait_for_a_teacher_that_is_away_hold_up_nobody(tmp_path: Path) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections and never answers
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    path = teachers_file(tmp_path, f"teachers: {{mute: {{judge: 'llamacpp:{address}', server_timeout_s: 600}}}}")
    with silent, teacher(WordJudge(), teachers_file=path) as client, ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(score, client, "/score?teacher=mute") for _ in range(60)]
        for _ in range(600):
            if client.get("/teachers").json()["teachers"][2]["state"] == "building":
                break
        assert score(client).status_code == 200
        assert not any(future.done() for future in waiting)
        assert {future.result().status_code for future in waiting} == {503}
