"""What the tests of the streams share: batches, verdicts, and consumers in threads."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from fabula_proto import (
    STORIES_STREAM,
    TEACHERS_GROUP,
    Message,
    ScoredBatch,
    Story,
    StoryBatch,
    TeacherIdentity,
    Verdict,
    VerdictStatus,
    scores_stream,
)
from fabula_proto.streams import START, Consumer, Streams

RUN = "r1"
SCORES = scores_stream(RUN)
TEACHER = TeacherIdentity(
    backend="test", model="m", revision="1", rubric="paper", rubric_version="1", rubric_hash="0" * 12, mode="rules"
)


def batch(step: int, chunk: int = 0, text: str = "A fox ran.") -> StoryBatch:
    """A batch of one story of run r1."""
    return StoryBatch(
        run=RUN, step=step, chunk=chunk, chunks=1, policy_version=step, stories=(Story(id=f"{step}-0", text=text),)
    )


def answer(asked: StoryBatch, reason: str = "no judge", worker: str = "w") -> ScoredBatch:
    """A failed verdict for each story: enough to travel."""
    verdicts = tuple(Verdict(story_id=s.id, status=VerdictStatus.FAILED, reason=reason) for s in asked.stories)
    return ScoredBatch(
        run=asked.run,
        step=asked.step,
        chunk=asked.chunk,
        digest=asked.digest,
        verdicts=verdicts,
        teacher=TEACHER,
        worker=worker,
        seconds=0.0,
    )


def scores_of(asked: StoryBatch) -> str:
    """Where the verdicts of a batch go."""
    return scores_stream(asked.run)


def teacher(streams: Streams, name: str = "t0", lease_s: float = 5.0, **settings: float) -> Consumer[StoryBatch]:
    """A member of the teachers' group with a short backoff."""
    return Consumer(
        streams,
        STORIES_STREAM,
        TEACHERS_GROUP,
        name,
        StoryBatch,
        lease_s=lease_s,
        backoff_s=settings.get("backoff_s", 0.05),
        max_deliveries=int(settings.get("max_deliveries", 5)),
    )


@contextmanager
def running(
    consumer: Consumer[StoryBatch],
    handler: Callable[[StoryBatch], Message | None] = answer,
    on_dead: Callable[[StoryBatch, str], Message | None] | None = None,
) -> Iterator[threading.Event]:
    """Run a consumer in a thread; leaving the block stops it and raises what it raised."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            consumer.run(handler, stop, result_stream=scores_of, on_dead=on_dead)
        except BaseException as error:
            raised.append(error)
            raise

    thread = threading.Thread(target=run, name=consumer.name)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive(), f"{consumer.name} did not stop"
    assert not raised, raised


def collect(streams: Streams, n: int, after: str = START, timeout_s: float = 15.0) -> list[tuple[str, ScoredBatch]]:
    """The next `n` results; fails when they do not come."""
    got: list[tuple[str, ScoredBatch]] = []
    deadline = time.monotonic() + timeout_s
    while len(got) < n:
        assert time.monotonic() < deadline, f"{len(got)} of {n} results came in {timeout_s} s"
        got += streams.read(SCORES, got[-1][0] if got else after, ScoredBatch, block_s=0.5)
    return got


def wait_until(what: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Wait for a condition; fails when it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def all_done(streams: Streams) -> bool:
    """Whether the teachers have nothing left to do."""
    return streams.depth(STORIES_STREAM, TEACHERS_GROUP).total == 0


@contextmanager
def losing_the_first_reply(url: str, *, to: bytes) -> Iterator[str]:
    """Address of a way to the server at `url` that breaks once: after a command holding `to` was carried out."""
    server_at = urlsplit(url)
    lost = threading.Event()

    def relay(client: socket.socket) -> None:
        with client, socket.create_connection((server_at.hostname, server_at.port)) as server:
            while request := client.recv(65536):
                server.sendall(request)
                reply = server.recv(65536)
                if to in request and not lost.is_set():
                    lost.set()
                    return
                client.sendall(reply)

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=relay, args=(client,)))
            threads[-1].start()

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        door = threading.Thread(target=serve, args=(listener,))
        door.start()
        try:
            yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            door.join(10)
    for thread in threads:
        thread.join(10)
    assert lost.is_set(), f"no command with {to!r} came by"
