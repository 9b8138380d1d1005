"""The teacher over a real socket: what is answered to good and bad requests."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabula_proto import PROBLEM_MEDIA_TYPE, Problem, ScoreResponse
from services.teacher.app import create_app
from services.teacher.rubric import load_rubric
from services.teacher.settings import TeacherSettings
from tests.teacher_helpers import WordJudge, serving, teacher, until_ready

TALE = "Once upon a time, a fox lost his lantern. He asked the owl. They found it at dawn."
FORM = {"Content-Type": "application/x-www-form-urlencoded"}  # what `curl -d` says of its body


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with teacher(WordJudge(), max_stories=50, max_body_bytes=300_000) as served:
        yield served


def problem(response: httpx.Response, status: int) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    parsed = Problem.from_json(response.content)
    assert parsed.status == status
    return parsed


@pytest.mark.parametrize("headers", [{}, FORM, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}])
def test_strings_are_scored_whatever_the_content_type(client: httpx.Client, headers: dict[str, str]) -> None:
    response = client.post("/score", content=json.dumps({"stories": [TALE, ""]}), headers=headers)
    answer = ScoreResponse.from_json(response.content)
    assert [v.story_id for v in answer.verdicts] == ["0", "1"]
    assert [v.total for v in answer.verdicts] == [3.0, 0.0]
    assert answer.teacher.rubric_hash == load_rubric().hash


def test_objects_keep_their_ids_and_order(client: httpx.Client) -> None:
    stories = [{"id": "b", "text": TALE}, {"id": "a", "prompt": "Tell me.", "text": TALE + " " + TALE}]
    answer = ScoreResponse.from_json(client.post("/score", json={"stories": stories}).content)
    assert [(v.story_id, v.total) for v in answer.verdicts] == [("b", 3.0), ("a", 9.0)]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "empty"),
        (b"  \n", 400, "empty"),
        (b"stories=hello", 400, "not JSON"),
        (b'{"stories": ["a"', 400, "not JSON"),
        (b"\xff\xfe\x00", 400, "not JSON"),
        (b'{"stories": ["\\ud800"]}', 400, "surrogate"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'["a"]', 422, "body"),
        (b"null", 422, "body"),
        (b'{"stories": []}', 422, "at least one story"),
        (b'{"stories": "a tale"}', 422, "stories: "),
        (b'{"stories": [7]}', 422, "stories.0: 7 is neither a string nor an object"),
        (b'{"stories": [NaN, null]}', 422, "stories.0: "),
        (b'{"stories": [{"txt": "a"}]}', 422, "unknown key"),
        (b'{"stories": [{"text": 3}]}', 422, "stories.0.text"),
        (b'{"stories": [{"text": "a", "id": ""}]}', 422, "stories.0.id"),
        (b'{"stories": ["a"], "mode": "joint"}', 422, "mode: unknown key"),
        (b'{"story": "a"}', 422, "missing"),
        (b'{"stories": [{"id": "x", "text": "a"}, {"id": "x", "text": "b"}]}', 422, "['x'] occur more than once"),
        (b'{"stories": [{"id": "1", "text": "a"}, "b"]}', 422, "['1'] occur more than once"),
        (json.dumps({"stories": ["a"] * 51}).encode(), 413, "at most 50"),
        (json.dumps({"stories": ["a" * 300_000]}).encode(), 413, "300000 bytes"),
    ],
)
def test_bad_bodies_get_a_problem_that_names_the_cure(
    client: httpx.Client, body: bytes, status: int, says: str
) -> None:
    assert says in problem(client.post("/score", content=body), status).detail


def test_refused_values_are_listed_once_each(client: httpx.Client) -> None:
    stories = [1, {"text": None}, {"text": "fine", "extra": 1}]
    found = problem(client.post("/score", json={"stories": stories}), 422)
    assert [error.location for error in found.errors] == ["stories.0", "stories.1.text", "stories.2.extra"]


def test_wrong_method_and_unknown_path(client: httpx.Client) -> None:
    refused = client.get("/score")
    assert "POST /score" in problem(refused, 405).detail
    assert refused.headers["allow"] == "POST"
    assert "/nothing" in problem(client.get("/nothing"), 404).detail


def test_endless_body_is_cut_off(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(400):
            yield b"x" * 1000

    assert "300000 bytes" in problem(client.post("/score", content=endless()), 413).detail


def test_a_client_that_leaves_mid_body_is_no_fault_of_ours(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = client.base_url.host, client.base_url.port
    with socket.create_connection((host, port or 0)) as left:
        left.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    for _ in range(20):  # time for the server to notice
        assert client.get("/livez").status_code == 200
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_too_long_story_is_refused_and_its_neighbour_judged() -> None:
    with teacher(WordJudge(), max_story_chars=200) as client:
        answer = ScoreResponse.from_json(client.post("/score", json={"stories": [TALE * 3, TALE]}).content)
    assert [v.status.value for v in answer.verdicts] == ["refused", "ok"]
    assert "at most 200" in (answer.verdicts[0].reason or "")


def test_a_story_that_breaks_the_judge_fails_alone() -> None:
    judge = WordJudge()
    with teacher(judge) as client:
        stories = [TALE, TALE + " BREAK", TALE, TALE]
        answer = ScoreResponse.from_json(client.post("/score", json={"stories": stories}).content)
    assert [v.status.value for v in answer.verdicts] == ["ok", "failed", "ok", "ok"]
    assert "cannot stand BREAK" in (answer.verdicts[1].reason or "")


def test_a_judge_that_goes_away_is_503_with_retry_after(client: httpx.Client) -> None:
    response = client.post("/score", json={"stories": [TALE + " AWAY"]})
    assert "wake it up" in problem(response, 503).detail
    assert int(response.headers["retry-after"]) > 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(), min_size=1, max_size=6))
def test_any_text_gets_one_verdict_in_order(client: httpx.Client, texts: list[str]) -> None:
    response = client.post("/score", content=json.dumps({"stories": texts}))
    answer = ScoreResponse.from_json(response.content)
    assert [v.story_id for v in answer.verdicts] == [str(i) for i in range(len(texts))]
    assert all((v.total is not None) == (v.status.value == "ok") for v in answer.verdicts)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
            lambda inner: (
                st.lists(inner) | st.dictionaries(st.sampled_from(["stories", "text", "id", "prompt", "x"]), inner)
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_no_body_is_a_server_error(client: httpx.Client, body: bytes) -> None:
    assert client.post("/score", content=body).status_code in (200, 400, 413, 422)


def test_probes_and_info_of_a_ready_teacher(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"alive": True}
    assert client.get("/readyz").json() == {"ready": True}
    info = client.get("/info").json()
    rubric = load_rubric()
    assert info["identity"]["backend"] == "words"
    assert [c["levels"] for c in info["rubric"]["criteria"]] == [list(c.levels) for c in rubric.criteria]
    assert info["rubric"]["max_total"] == 9
    assert info["limits"] == {
        "max_stories": 50,
        "max_story_chars": 100_000,
        "max_body_bytes": 300_000,
        "batch_tokens": 8192,
        "batch_stories": 64,
        "queued_tokens": 262_144,
    }
    assert [(t["name"], t["state"]) for t in info["teachers"]["teachers"]] == [("default", "ready"), ("rules", "idle")]
    assert info["queue"]["enabled"] is False
    assert info["ready"] is True


def test_a_judge_that_cannot_be_built_keeps_the_process_and_says_why() -> None:
    with teacher(None, teacher="transformers:/no/such/folder") as client:
        for _ in range(600):
            reason = problem(client.get("/readyz"), 503).detail
            if "being built" not in reason:
                break
            threading.Event().wait(0.05)
        assert "/no/such/folder" in reason
        assert client.get("/livez").status_code == 200
        assert client.get("/info").json()["reason"] == reason
        refused = client.post("/score", json={"stories": [TALE]})
        assert problem(refused, 503).detail == reason
        assert "retry-after" in refused.headers


def test_the_lifespan_builds_the_rules_judge() -> None:
    with teacher(None, teacher="rules") as client:
        until_ready(client)
        assert client.get("/info").json()["identity"]["backend"] == "rules"


def test_docs_work_offline_and_describe_the_body(client: httpx.Client) -> None:
    for path in ("/docs", "/", "/playground.js", "/playground.css"):
        page = client.get(path).text
        assert "http://" not in page
        assert "https://" not in page
    api = client.get("/openapi.json").json()
    schemas = api["components"]["schemas"]
    ref = api["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert ref.rpartition("/")[2] in schemas
    described = {"ScoreRequest", "StoryInput", "ScoreResponse", "Verdict", "Problem", "InspectRequest", "RunTeachers"}
    assert described <= set(schemas)


def test_a_drain_finishes_what_has_begun_and_takes_nothing_new() -> None:
    judge = WordJudge()
    judge.gate.clear()
    app = create_app(TeacherSettings(batch_stories=1), judge)
    with serving(app) as client:
        answers: list[int] = []

        def ask() -> None:
            answers.append(client.post("/score", json={"stories": [TALE, TALE]}).status_code)

        begun = threading.Thread(target=ask)
        begun.start()
        assert judge.entered.wait(30)
        app.state.service.drain()
        assert "shutting down" in problem(client.get("/readyz"), 503).detail
        assert client.get("/livez").status_code == 200
        assert problem(client.post("/score", json={"stories": [TALE]}), 503).title == "Not ready"
        judge.gate.set()
        begun.join(30)
    assert answers == [200]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/audit?quick=maybe", "query.quick: Input should be a valid boolean"),
        ("/audit?seed=-1", "query.seed: Input should be greater than or equal to 0, found '-1'"),
        ("/audit?sed=1", "the address asks for sed, and only teacher, quick, seed can be asked for there"),
    ],
)
def test_a_wrong_question_in_the_address_is_a_problem(client: httpx.Client, path: str, says: str) -> None:
    answer = client.post(path)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM_MEDIA_TYPE)
    assert says in answer.json()["detail"]


def test_a_coded_body_is_refused_and_a_byte_order_mark_is_not(client: httpx.Client) -> None:
    body = json.dumps({"stories": [TALE]}).encode()
    coded = client.post("/score", content=gzip.compress(body, mtime=0), headers={"Content-Encoding": "gzip"})
    marked = client.post("/score", content=b"\xef\xbb\xbf" + body)
    assert (coded.status_code, marked.status_code) == (415, 200)
    assert "coded as 'gzip'; send it as it is" in coded.json()["detail"]


def test_an_unknown_path_names_those_that_there_are(client: httpx.Client) -> None:
    detail = client.get("/nowhere").json()["detail"]
    assert "POST /score" in detail
    assert "PUT /runs/{run}/teachers" in detail
