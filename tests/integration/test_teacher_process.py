"""The teacher as a process of its own: its command line, its environment, and its end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fabula_proto import STORIES_STREAM, ScoredBatch, ScoreResponse, Story, StoryBatch, VerdictStatus, scores_stream
from fabula_proto.streams import START, Streams
from services.teacher.__main__ import main
from tests.teacher_helpers import until_ready
from tests.tiny_models import make_tiny_llama

TALE = "Once upon a time, a fox lost his lantern. He asked the owl. They found it at dawn."
COMMAND = [sys.executable, "-m", "services.teacher"]


def environment(**given: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FABULA_")}
    return inherited | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | given


@contextmanager
def process(*arguments: str, **given: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A teacher on a free port; it is told to end afterwards, and must end well."""
    child = subprocess.Popen(
        [*COMMAND, "--port", "0", *arguments],
        env=environment(**given),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address, f"no address in {line!r}"
        with httpx.Client(base_url=address[0], timeout=60, trust_env=False) as client:
            yield child, client
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()


def test_serves_the_judge_that_the_environment_names() -> None:
    with process(FABULA_TEACHER="rules:") as (_, client):
        until_ready(client)
        answer = ScoreResponse.from_json(client.post("/score", content=json.dumps({"stories": [TALE, ""]})).content)
        assert answer.teacher.backend == "rules"
        assert [v.status for v in answer.verdicts] == [VerdictStatus.OK] * 2
        assert answer.verdicts[1].total == 0.0


def test_a_language_model_drains_its_batch_on_sigterm(tmp_path: Path, redis_url: str) -> None:
    folder = make_tiny_llama(tmp_path / "tiny-llama")
    stories = tuple(Story(id=str(i), text=f"{TALE} It was night {i}.") for i in range(24))
    batch = StoryBatch(run="drain", step=0, chunk=0, chunks=1, policy_version=0, stories=stories)
    with Streams(redis_url) as streams:
        with process("--redis-url", redis_url, FABULA_TEACHER=f"transformers:{folder}", FABULA_BATCH_STORIES="4") as (
            _,
            client,
        ):
            until_ready(client)
            assert client.get("/info").json()["identity"]["model"] == "tiny-llama"
            streams.publish(STORIES_STREAM, batch)
            deadline = time.monotonic() + 60
            while streams.depth(STORIES_STREAM, "teachers").waiting:  # until it has taken the batch
                assert time.monotonic() < deadline, "nobody took the batch"
                time.sleep(0.01)
        ((_, scored),) = streams.read(scores_stream("drain"), START, ScoredBatch)
    assert [v.story_id for v in scored.verdicts] == [s.id for s in stories]
    assert {v.status for v in scored.verdicts} == {VerdictStatus.OK}


@pytest.mark.parametrize(
    ("arguments", "given", "says"),
    [
        (["--teacher", "oracle:x"], {}, r"unknown backend 'oracle'; known are rules:, transformers:MODEL"),
        ([], {"FABULA_TEACHER": "delphi"}, r"FABULA_TEACHER: .*unknown backend 'delphi'"),
        (["--teacher", "rules:strict"], {}, r"takes no model"),
        (["--rubric", "/no/such.yaml"], {}, r"rubric '/no/such.yaml' cannot be read"),
        (["--redis-url", "localhost"], {}, r"redis://"),
        ([], {"FABULA_DTYPE": "int4"}, r"FABULA_DTYPE"),
        (["--port", "99999"], {}, r"cannot listen on 127.0.0.1:99999 .*give another --port"),
        (["--port", "x"], {}, r"invalid int value"),
    ],
)
def test_mistakes_end_with_a_message(
    arguments: list[str],
    given: dict[str, str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["--port", "0", *arguments])
    assert ended.value.code == 2
    assert re.search(says, capsys.readouterr().err)


def test_a_port_in_use_is_named() -> None:
    with process(FABULA_TEACHER="rules") as (_, client):
        port = client.base_url.port
        done = subprocess.run(
            [*COMMAND, "--port", str(port)], env=environment(), capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_suffices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for word in ("FABULA_TEACHER", "transformers:", "--port", "--redis-url", "curl"):
        assert word in shown


def test_the_app_is_cheap_to_import() -> None:
    code = "import sys, services.teacher.app; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
