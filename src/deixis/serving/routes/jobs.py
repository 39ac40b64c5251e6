"""Routes of jobs: begun, looked at, their results fetched, cancelled and forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from deixis.serving.films import FILM
from deixis.serving.images import decoded_base64
from deixis.serving.jobs.queue import RESULT, Job, NoJobError
from deixis.serving.jobs.work import DRAWN, Work
from deixis.serving.requests import AskedJob
from deixis.serving.routes.answering import Serving, add_form_route, answered, json_response, serving_of


def add_job_routes(app: FastAPI, work: Work) -> None:
    """`/v1/jobs` and what is below it.

    Args:
        work: checks what is asked before it waits.
    """

    async def begin(serving: Serving, asked: AskedJob) -> Response:
        job = await run_in_threadpool(_added, serving, asked, work)
        response = json_response(described(job))
        response.status_code = 202
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return response

    add_form_route(app, "/v1/jobs", AskedJob, begin)
    app.add_api_route("/v1/jobs", list_jobs, methods=["GET"], response_model=None)
    app.add_api_route("/v1/jobs/{job_id}", show, methods=["GET"], response_model=None)
    app.add_api_route("/v1/jobs/{job_id}", cancel, methods=["DELETE"], response_model=None)
    app.add_api_route("/v1/jobs/{job_id}/result", result, methods=["GET"], response_model=None)
    app.add_api_route("/v1/jobs/{job_id}/film", film, methods=["GET"], response_model=None)


def described(job: Job) -> dict[str, Any]:
    """A job as clients see it."""
    return {
        "id": job.id,
        "task": job.asked["task"],
        "path": job.asked.get("path", ""),
        "state": job.state,
        "done": job.done,
        "total": job.total,
        "error": job.error,
        "created": round(job.created, 3),
        "finished": None if job.finished is None else round(job.finished, 3),
    }


def _added(serving: Serving, asked: AskedJob, work: Work) -> Job:
    work.check(asked)
    files = {FILM: decoded_base64("video", asked.video)} if asked.video else {}
    # The film is a file of the job, and not repeated in its record.
    return serving.jobs.add(asked.model_dump(exclude={"video"}), files)


async def list_jobs(request: Request) -> Response:
    """The jobs that are known, oldest first."""
    return json_response({"jobs": [described(job) for job in serving_of(request).jobs.all()]})


async def show(request: Request, job_id: str) -> Response:
    """How far a job is."""
    serving = serving_of(request)

    async def found() -> Response:
        return json_response(described(serving.jobs.find(job_id)))

    return await answered(found, serving.timeout_s)


async def cancel(request: Request, job_id: str) -> Response:
    """End a job that waits or runs; forget one that has ended, with its results."""
    serving = serving_of(request)

    async def found() -> Response:
        return json_response(described(await run_in_threadpool(serving.jobs.cancel, job_id)))

    return await answered(found, serving.timeout_s)


async def result(request: Request, job_id: str) -> Response:
    """One line of JSON for each image or frame so far."""
    return await _file(request, job_id, RESULT, "application/x-ndjson")


async def film(request: Request, job_id: str) -> Response:
    """The film with the answer drawn, of a job with `answer=film`."""
    return await _file(request, job_id, DRAWN, "video/mp4")


async def _file(request: Request, job_id: str, name: str, media_type: str) -> Response:
    serving = serving_of(request)

    async def found() -> Response:
        path: Path = serving.jobs.folder_of(serving.jobs.find(job_id)) / name
        if not path.is_file():
            raise NoJobError(f"job {job_id[:40]!r} has no such result, or not yet")
        return FileResponse(path, media_type=media_type, headers={"X-Content-Type-Options": "nosniff"})

    return await answered(found, serving.timeout_s)
