"""The evaluator over HTTP: its page, what runs hold, probes. Building the app loads no torch and connects nowhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse

from fabula_proto import Problem
from services.evaluator.adapters.job_store import JobStore
from services.evaluator.adapters.run_folder import RunFolders
from services.evaluator.adapters.run_stories import StoryReader
from services.evaluator.device import Device
from services.evaluator.generated import SOURCE
from services.evaluator.job_worker import JobWorker
from services.evaluator.jobs_api import add_jobs
from services.evaluator.metrics import Metrics
from services.evaluator.orders import JOBS
from services.evaluator.page import load_page
from services.evaluator.problems import NotReadyError, add_problem_handlers, problem_responses
from services.evaluator.settings import EvaluatorSettings
from services.evaluator.views import (
    Alive,
    EvaluatorInfo,
    Ready,
    RunDetail,
    RunList,
    RunMetrics,
    StoryPage,
)
from services.evaluator.worker import QueueWorker

DESCRIPTION = "Measures checkpoints from the queue and shows runs: curves, checkpoints with their scores, stories."
_NOT_FOUND = problem_responses({404: "No such run or step", 422: "A value is not accepted"})


def create_app(settings: EvaluatorSettings) -> FastAPI:
    """The evaluator as an ASGI app; its lifespan runs the queue worker where `settings.redis_url` is given.

    Raises:
        ValueError: `settings.redis_url` is no address of a Redis server.
    """
    device = Device()
    worker = QueueWorker(settings, device) if settings.redis_url is not None else None
    store = JobStore(settings.runs_dir / JOBS)
    jobs = JobWorker(store, settings, device)
    workers: tuple[JobWorker | QueueWorker, ...] = (jobs,) if worker is None else (jobs, worker)
    runs = RunFolders(settings.runs_dir)
    metrics = Metrics(runs, store, device, worker, settings.redis_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for each in workers:
            each.start()
        yield
        for each in workers:
            each.finish()
        for each in workers:
            each.stop()
        metrics.close()

    app = FastAPI(
        title="Fabula evaluator",
        summary="Measures every checkpoint and shows what a run gained",
        description=DESCRIPTION,
        version=metadata.version("fabula"),
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load their scripts from the internet
        redoc_url=None,
    )
    app.state.workers = workers
    add_problem_handlers(app)
    _add_page(app)
    _add_probes(app, settings, worker)
    _add_metrics(app, metrics)
    _add_runs(app, runs)
    add_jobs(app, settings, store, jobs)
    return app


def _add_page(app: FastAPI) -> None:
    page = load_page()

    @app.get("/", include_in_schema=False)
    async def root() -> HTMLResponse:
        return HTMLResponse(page.html, headers={"Content-Security-Policy": page.policy, "Cache-Control": "no-cache"})


def _add_probes(app: FastAPI, settings: EvaluatorSettings, worker: QueueWorker | None) -> None:
    @app.get("/livez", summary="Is the process alive?")
    async def livez() -> Alive:
        """200 as long as the process serves."""
        return Alive()

    @app.get("/readyz", responses={503: {"model": Problem}}, summary="Are checkpoints being measured?")
    def readyz() -> Ready:
        """200 when the queue is served, or no queue was given; 503 with the reason otherwise."""
        if worker is not None and (reason := worker.why_not_ready()) is not None:
            raise NotReadyError(reason)
        return Ready()

    @app.get("/info", summary="What is measured, with what, and how far the work is")
    def info() -> EvaluatorInfo:
        """Suites, data, teacher, and the state of the queue worker."""
        return EvaluatorInfo(
            version=app.version,
            worker_name=settings.worker,
            runs_dir=str(settings.runs_dir),
            suites=settings.chosen_suites,
            eval_data=SOURCE if settings.eval_data is None else str(settings.eval_data),
            teacher_url=settings.teacher_url,
            queue=None if worker is None else worker.info(),
        )


def _add_metrics(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/metrics", summary="Prometheus metrics", response_class=Response)
    def get_metrics(request: Request) -> Response:
        """The evaluator's work, both queues, and the latest numbers of the runs that changed last."""
        body, kind = metrics.render(request.headers.get("accept", ""))
        return Response(body, media_type=kind)


def _add_runs(app: FastAPI, runs: RunFolders) -> None:
    reader = StoryReader()

    @app.get("/api/runs", summary="All runs, the one changed last first")
    def list_runs() -> RunList:
        return RunList(runs=runs.summaries())

    @app.get("/api/runs/{run}", responses=_NOT_FOUND, summary="Configuration, checkpoints, reports, latest metrics")
    def get_run(run: str) -> RunDetail:
        return runs.detail(run)

    @app.get("/api/runs/{run}/metrics", responses=_NOT_FOUND, summary="The curves")
    def get_metrics(
        run: str, points: Annotated[int, Query(ge=2, le=100_000, description="Most lines a curve.")] = 500
    ) -> RunMetrics:
        return runs.metrics(run, points)

    @app.get("/api/runs/{run}/stories", responses=_NOT_FOUND, summary="Stories of one step, with their verdicts")
    def get_stories(
        run: str,
        step: Annotated[int | None, Query(ge=0, description="Update; left out: the latest.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 20,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> StoryPage:
        return reader.page(run, runs.folder(run), step, offset, limit)
