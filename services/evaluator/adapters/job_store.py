"""Evaluations that were asked for, as files: none is lost when a process dies, and several processes may share them.

`<id>.json` is the job, written whole; the process that works on it holds a lock on `<id>.lock`, which the system lets
go of when that process ends, however it ends; `<id>.cancel` asks it to stop.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from fabula_proto import EvaluationJob, EvaluationOrder
from services.evaluator.adapters.files import write_whole
from services.evaluator.errors import EvaluatorError, JobNotFoundError, JobStateError

_ID = re.compile(r"^\d{8}T\d{12}-[0-9a-f]{8}$")
OPEN = ("waiting", "running")


class JobStore:
    """The jobs in one folder, which is made when the first one is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._over: dict[str, EvaluationJob] = {}  # these never change again, and a worker looks every two seconds

    def submit(self, order: EvaluationOrder) -> EvaluationJob:
        """Note a new job.

        Raises:
            EvaluatorError: it cannot be written.
        """
        now = datetime.now(UTC)
        job = EvaluationJob(
            id=f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}", order=order, state="waiting", created_at=now
        )
        self.save(job)
        return job

    def save(self, job: EvaluationJob) -> None:
        """Write a job whole.

        Raises:
            EvaluatorError: it cannot be written.
        """
        path = self._path(job.id)
        try:
            write_whole(path, job.to_json() + "\n")
        except OSError as error:
            raise EvaluatorError(f"{path} cannot be written: {error}; make room, or give another --runs-dir") from error

    def get(self, job_id: str) -> EvaluationJob:
        """One job.

        Raises:
            JobNotFoundError: there is none of this id.
        """
        if _ID.match(job_id):
            try:
                return EvaluationJob.from_json(self._path(job_id).read_bytes())
            except FileNotFoundError:
                pass
            except (OSError, ValidationError) as error:
                raise EvaluatorError(f"{self._path(job_id)} cannot be read: {error}") from error
        raise JobNotFoundError(f"no evaluation {job_id!r}; GET /evaluations lists them")

    def all(self) -> list[EvaluationJob]:
        """Every job that can be read, the oldest first; a waiting one knows its position."""
        jobs = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                job = self._over.get(path.stem) or EvaluationJob.from_json(path.read_bytes())
            except (OSError, ValidationError):
                continue  # GET of this very job says what is wrong with it
            if job.state not in OPEN:
                self._over[job.id] = job
            jobs.append(job)
        waiting = [job.id for job in jobs if job.state == "waiting"]
        places = {job_id: place for place, job_id in enumerate(waiting)}
        return [job.model_copy(update={"position": places.get(job.id)}) for job in jobs]

    def cancel(self, job_id: str) -> EvaluationJob:
        """Cancel a job that waits at once; one that runs stops within a batch.

        Raises:
            JobNotFoundError: there is none of this id.
            JobStateError: it is over.
        """
        job = self.get(job_id)
        if job.state not in OPEN:
            raise JobStateError(
                f"evaluation {job_id} is {job.state} already; only one that waits or runs can be cancelled"
            )
        self._cancel_file(job_id).touch()
        with self.claimed(job_id) as claimed:
            if claimed is not None and claimed.state in OPEN:  # nobody works on it
                self.save(finished(claimed, "cancelled"))
        return self.get(job_id)

    def is_cancelled(self, job_id: str) -> bool:
        """Whether somebody asked the job to stop."""
        return self._cancel_file(job_id).exists()

    @contextmanager
    def claimed(self, job_id: str) -> Iterator[EvaluationJob | None]:
        """The job, ours for as long as the context lasts; none where another holds it."""
        descriptor = os.open(self._folder / f"{job_id}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield self.get(job_id)
        finally:
            os.close(descriptor)

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.json"

    def _cancel_file(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.cancel"


def finished(job: EvaluationJob, state: str, **found: object) -> EvaluationJob:
    """The job at its end."""
    return job.model_copy(update={"state": state, "finished_at": datetime.now(UTC), **found})
