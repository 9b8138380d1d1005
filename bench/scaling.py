"""Teachers side by side on one queue: stories a second and how long a batch waits, with 1, 2 and 4 processes.

    .venv/bin/python -m bench.scaling [--teachers 1,2,4] [--stories 360] [--chunk 15] [--rounds 3]

One update's stories of the paper, 360 of some 90 words, lie on the queue at once, in chunks, as the trainer sends them.
The judges:

- rules: the rules judge, which takes hardly any time
- llama: a random Llama (4 layers of 256) in the teacher's process, joint mode, one CPU thread a process
- remote: a thin teacher before a server that answers each story after a fixed time, however many it holds at once: a
  fleet that is never full; `--delay` seconds

Each teacher is `python -m services.teacher`; the queue is a Redis server of this run's own. A batch's wait is the time
from its publication to its answer without the time that a teacher held it. Times are medians over rounds; ratios are
held against one process, in the same run. More processes than cores share the cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from fabula_proto import STORIES_STREAM, ScoredBatch, Story, StoryBatch, scores_stream
from fabula_proto.streams import START, Streams
from services.local import http
from services.redis_server import start_server
from services.student_trainer.grammar import generate_documents
from tests.remote_helpers import Answer, answering
from tests.tiny_models import make_small_llama

RUN = "scaling"
READY_S, ANSWER_S = 120.0, 600.0


def completion() -> str:
    """A chat completion of OpenAI's API: the answer "2 1 2", each digit the likeliest of four."""

    def place(token: str, logprob: float) -> dict[str, object]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    def chosen(token: str) -> dict[str, object]:
        top = [place(token, -0.4)] + [place(other, -2.5) for other in "0123" if other != token and token.strip()]
        return {**place(token, -0.4), "top_logprobs": top}

    message = {"role": "assistant", "content": "2 1 2"}
    logprobs = {"content": [chosen(token) for token in ("2", " ", "1", " ", "2")]}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
    return json.dumps({"id": "1", "object": "chat.completion", "model": "slow", "choices": [choice]})


@contextmanager
def slow_server(delay_s: float) -> Iterator[str]:
    """A server with OpenAI's API that gives every story the same verdict after `delay_s`; its address."""
    body = completion()

    def respond(_number: int, _headers: dict[str, str]) -> Answer:
        time.sleep(delay_s)
        return 200, {"Content-Type": "application/json"}, body

    with answering(respond) as url:
        yield url


@contextmanager
def teachers(count: int, settings: dict[str, str], redis_url: str, folder: Path) -> Iterator[None]:
    """So many teacher processes, ready, on the queue."""
    with ExitStack() as stack:
        urls = []
        for number in range(count):
            log = stack.enter_context((folder / f"teacher-{count}-{number}.log").open("w+"))
            environment = {
                **os.environ,
                **settings,
                "FABULA_REDIS_URL": redis_url,
                "FABULA_WORKER": f"teacher-{number}",
                "OMP_NUM_THREADS": "1",
            }
            command = [sys.executable, "-m", "services.teacher", "--port", "0"]
            process = stack.enter_context(subprocess.Popen(command, env=environment, stdout=log, stderr=log))  # noqa: S603
            stack.callback(process.terminate)
            urls.append((process, Path(log.name)))
        for process, path in urls:
            _wait_ready(process, path)
        yield


def _wait_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        said = log.read_text()
        if process.poll() is not None:
            break
        url = next((word.rstrip(",") for word in said.split() if word.startswith("http://127.0.0.1")), None)
        if url is not None and http.readiness(url).ready:
            return
        time.sleep(0.1)
    raise SystemExit(f"a teacher is not ready; its log ends with\n{log.read_text()[-2000:]}")


def one_round(streams: Streams, stories: Sequence[Story], chunk: int, step: int) -> tuple[float, list[float]]:
    """Seconds until all verdicts are there, and each batch's wait in seconds."""
    parts = [tuple(stories[i : i + chunk]) for i in range(0, len(stories), chunk)]
    batches = [
        StoryBatch(run=RUN, step=step, chunk=i, chunks=len(parts), policy_version=step, stories=part, fresh=True)
        for i, part in enumerate(parts)
    ]
    start = time.monotonic()
    streams.publish_many(STORIES_STREAM, batches)
    waits: list[float] = []
    last = START
    while len(waits) < len(batches):
        if time.monotonic() - start > ANSWER_S:
            raise SystemExit(f"{len(batches) - len(waits)} of {len(batches)} batches have no answer after {ANSWER_S} s")
        for entry, scored in streams.read(scores_stream(RUN), last, ScoredBatch, block_s=5.0):
            last = entry
            if any(verdict.status != "ok" for verdict in scored.verdicts):
                raise SystemExit(f"a verdict failed: {scored.verdicts[0]}")
            waits.append(time.monotonic() - start - scored.seconds)
    seconds = time.monotonic() - start
    streams.delete(scores_stream(RUN))
    return seconds, waits


def measure(name: str, settings: dict[str, str], options: argparse.Namespace, redis_url: str, folder: Path) -> None:
    """One judge with each number of processes: a line of the table for each."""
    documents = islice(generate_documents(1_000 * options.stories, seed=7), options.stories)
    stories = [Story(id=str(i), text=document.text) for i, document in enumerate(documents)]
    base = None
    with Streams(redis_url) as streams:
        for count in map(int, options.teachers.split(",")):
            with teachers(count, settings, redis_url, folder):
                one_round(streams, stories, options.chunk, 0)  # warms up
                rounds = [one_round(streams, stories, options.chunk, 1 + i) for i in range(options.rounds)]
            rate = len(stories) / statistics.median(seconds for seconds, _ in rounds)
            base = base or rate
            wait = statistics.median(statistics.mean(waits) for _, waits in rounds)
            longest = statistics.median(max(waits) for _, waits in rounds)
            print(f"{name:8}{count:9}{rate:12.1f}{rate / base:8.2f}x{wait:14.2f}{longest:14.2f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judges", default="rules,llama,remote", help="with commas between")
    parser.add_argument("--teachers", default="1,2,4", help="numbers of processes")
    parser.add_argument("--stories", type=int, default=360)
    parser.add_argument("--chunk", type=int, default=15, help="stories a batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds of the remote server for a story")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        redis = stack.enter_context(start_server(folder / "redis"))
        judges = {"rules": {"FABULA_TEACHER": "rules:"}}
        if "llama" in options.judges:
            corpus = [document.text for document in generate_documents(20_000, seed=1)]
            model = make_small_llama(folder / "llama", corpus, layers=4, width=256, vocab=2_000)
            judges["llama"] = {"FABULA_TEACHER": f"transformers:{model}", "FABULA_DEVICE": "cpu"}
        if "remote" in options.judges:
            url = stack.enter_context(slow_server(options.delay))
            judges["remote"] = {"FABULA_TEACHER": f"openai:{url}/v1#slow", "FABULA_MODE": "sample"}
        words = f"{options.stories} stories in batches of {options.chunk}, {os.cpu_count()} cores"
        print(f"{words}, medians of {options.rounds} rounds; remote: {options.delay} s a story")
        print(f"{'judge':8}{'teachers':>9}{'stories/s':>12}{'':>9}{'mean wait s':>14}{'longest s':>14}")
        for judge in options.judges.split(","):
            measure(judge, judges[judge], options, redis.url, folder)


if __name__ == "__main__":
    main()
