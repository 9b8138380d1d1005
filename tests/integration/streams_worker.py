"""A consumer in a process of its own, to be killed: python -m tests.integration.streams_worker URL NAME LEASE_S.

It says "took <key>" when it has a message, then works for an hour.
"""

import sys
import threading
import time

from fabula_proto import STORIES_STREAM, TEACHERS_GROUP, StoryBatch
from fabula_proto.streams import Consumer, Streams


def work_for_an_hour(batch: StoryBatch) -> None:
    print(f"took {batch.key}", flush=True)
    time.sleep(3600)


if __name__ == "__main__":
    url, name, lease_s = sys.argv[1:]
    Consumer(Streams(url), STORIES_STREAM, TEACHERS_GROUP, name, StoryBatch, lease_s=float(lease_s)).run(
        work_for_an_hour, threading.Event()
    )
