"""The checkpoint writes stories, a teacher judges them."""

import time
from collections.abc import Iterator

from services.evaluator.adapters.teacher_client import TeacherClient
from services.evaluator.adapters.training_text import tokenised_documents, training_documents
from services.evaluator.bench import Bench, Measured
from services.evaluator.copying import CopyFinder
from services.evaluator.errors import MissingDataError
from services.evaluator.progress import Progress
from services.evaluator.settings import DEFAULT_NEW_TOKENS, DEFAULT_PROMPT, DEFAULT_STORIES
from services.evaluator.suites import storytelling
from services.evaluator.writing import write_stories

LOOK_EVERY_S = 0.25
_DOCUMENTS_A_LOOK = 200


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

    copied = _copied(bench, [story.text for story in written])
    stories = storytelling.Written(tuple(written), prompt, settings.seed, copied)
    with TeacherClient(
        settings.teacher_url,
        chunk=settings.teacher_chunk,
        timeout_s=settings.teacher_timeout_s,
        patience_s=settings.teacher_patience_s,
        wait=wait,
    ) as teacher:
        return Measured(storytelling.evaluate(stories, teacher, settings.seed))


def _copied(bench: Bench, texts: list[str]) -> tuple[int, ...] | None:
    """Words of each story's longest copy from the run's training text; none where that is not here."""
    finder, done = CopyFinder(texts), bench.done(storytelling.NAME)
    try:
        for number, document in enumerate(_training_text(bench)):
            if number % _DOCUMENTS_A_LOOK == 0:
                done(len(texts), len(texts))
            finder.read(document)
    except MissingDataError:
        return None
    return tuple(finder.longest())


def _training_text(bench: Bench) -> Iterator[str]:
    """From the files of the run's corpus; where they are not here, from the run's own tokenised copy."""
    try:
        yield from training_documents(bench.run.corpus, bench.run.text_field)
    except MissingDataError:
        yield from tokenised_documents(bench.request.run_folder, bench.checkpoint.tokenizer)
