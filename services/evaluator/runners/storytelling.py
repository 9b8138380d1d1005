"""The checkpoint writes stories, a teacher judges them."""

import time

from services.evaluator.adapters.teacher_client import TeacherClient
from services.evaluator.bench import Bench, Measured
from services.evaluator.errors import MissingDataError
from services.evaluator.progress import Progress
from services.evaluator.settings import DEFAULT_NEW_TOKENS, DEFAULT_PROMPT, DEFAULT_STORIES
from services.evaluator.suites import storytelling
from services.evaluator.writing import write_stories

LOOK_EVERY_S = 0.25


def run(bench: Bench) -> Measured:
    """Stories from the run's prompt, judged by the teacher at `settings.teacher_url`."""
    settings, run = bench.settings, bench.run
    if settings.teacher_url is None:
        raise MissingDataError(
            "no teacher to judge stories; give one with --teacher-url, such as http://localhost:8001"
        )
    if bench.checkpoint.backend != "causal":
        raise MissingDataError(f"a masked language model ({bench.checkpoint.backend}) writes no stories")
    prompt = settings.prompt or run.prompt or DEFAULT_PROMPT
    written = write_stories(
        bench.checkpoint.model,
        bench.checkpoint.tokenizer,
        prompt,
        stories=settings.stories or run.stories or DEFAULT_STORIES,
        seed=settings.seed,
        max_new_tokens=settings.max_new_tokens or run.max_new_tokens or DEFAULT_NEW_TOKENS,
        batch_size=settings.story_batch,
        done=bench.done(storytelling.NAME),
    )

    def wait(seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            bench.watch(Progress(storytelling.NAME, len(written), len(written)))
            if (left := end - time.monotonic()) <= 0:
                return
            time.sleep(min(LOOK_EVERY_S, left))

    with TeacherClient(
        settings.teacher_url,
        chunk=settings.teacher_chunk,
        timeout_s=settings.teacher_timeout_s,
        patience_s=settings.teacher_patience_s,
        wait=wait,
    ) as teacher:
        stories = storytelling.Written(tuple(written), prompt, settings.seed)
        return Measured(storytelling.evaluate(stories, teacher, settings.seed))
