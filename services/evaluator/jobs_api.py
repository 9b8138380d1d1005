"""Evaluations on demand over HTTP: ask for one, look at it, cancel it."""

from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from fabula_proto import EvaluationJob, EvaluationJobs, EvaluationOrder, JobState
from services.evaluator.adapters.job_store import JobStore
from services.evaluator.job_worker import JobWorker
from services.evaluator.orders import checkpoint_folder, order_settings
from services.evaluator.problems import problem_responses
from services.evaluator.settings import EvaluatorSettings


async def _order(request: Request) -> EvaluationOrder:
    """The body as an order, whatever the header calls it: `curl -d` says that it is a form."""
    try:
        return EvaluationOrder.from_json(await request.body())
    except ValidationError as error:
        found = [{**detail, "loc": ("body", *detail["loc"])} for detail in error.errors()]
        raise RequestValidationError(found) from error


_ORDER = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/EvaluationOrder"}}},
    }
}


def add_jobs(app: FastAPI, settings: EvaluatorSettings, store: JobStore, worker: JobWorker) -> None:
    """Serve /evaluations on `app`."""

    def now(job: EvaluationJob) -> EvaluationJob:
        return job.model_copy(update={"progress": worker.progress(job.id)}) if job.state == "running" else job

    def placed(job: EvaluationJob) -> EvaluationJob:
        places = {other.id: other.position for other in store.all()} if job.state == "waiting" else {}
        return job.model_copy(update={"position": places.get(job.id)})

    @app.post(
        "/evaluations",
        status_code=202,
        responses=problem_responses({422: "The order is not accepted"}),
        openapi_extra=_ORDER,
        summary="Ask for a checkpoint to be measured",
    )
    def ask(order: Annotated[EvaluationOrder, Depends(_order)], response: Response) -> EvaluationJob:
        """Noted on disk before the answer; measured after those that were asked for before it."""
        checkpoint_folder(order, settings)
        order_settings(order, settings)
        job = store.submit(order)
        worker.wake()
        response.headers["Location"] = f"/evaluations/{job.id}"
        return placed(job)

    @app.get("/evaluations", summary="Evaluations that were asked for, the oldest first")
    def jobs(
        state: Annotated[JobState | None, Query(description="Only these.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="The latest so many.")] = 100,
    ) -> EvaluationJobs:
        found = [now(job) for job in store.all() if state is None or job.state == state]
        return EvaluationJobs(evaluations=tuple(found[-limit:]))

    @app.get(
        "/evaluations/{job_id}",
        responses=problem_responses({404: "No such evaluation"}),
        summary="State, progress and the scores so far",
    )
    def look(job_id: str) -> EvaluationJob:
        return now(placed(store.get(job_id)))

    @app.delete(
        "/evaluations/{job_id}",
        responses=problem_responses({404: "No such evaluation", 409: "It is over"}),
        summary="Cancel an evaluation that waits or runs",
    )
    def cancel(job_id: str) -> EvaluationJob:
        """One that runs stops within a batch; its finished suites stay on disk."""
        return now(store.cancel(job_id))
