"""HTTP for what was made: runs, checkpoints, sessions and their files; and for futures, many at once.

Everything is looked up as the request's owner, so that what is somebody else's answers 404 like what never was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from engine.errors import DataError, NotFound
from engine.server import links
from engine.server import requests as bodies
from engine.server.checkpoints import CheckpointInfo, CheckpointPath
from engine.server.library import Library, RunRecord
from engine.server.owners import acting_as
from engine.server.service import Service
from engine.server.sessions import Session
from engine.server.web import read_body, service_of

MAX_PAGE = 1000
LONGEST_POLL = 20.0  # below the SDK's 45 s time-out
_TYPES = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}
T = TypeVar("T")


# -- runs


async def training_runs(request: Request) -> JSONResponse:
    service = service_of(request)
    page, cursor = _page(request, await asyncio.to_thread(service.library.runs))
    found = await asyncio.to_thread(lambda: [_run(service, record) for record in page])
    return JSONResponse({"training_runs": found, "cursor": cursor})


async def training_run(request: Request) -> JSONResponse:
    service = service_of(request)
    return JSONResponse(_run(service, service.library.run(request.path_params["run_id"])))


def _run(service: Service, record: RunRecord) -> dict[str, Any]:
    checkpoints = [_checkpoint(service.library, info) for info in service.store.all_of(record.id)]
    last = {found["checkpoint_type"]: found for found in checkpoints}
    live = service.runs.get(record.id)
    return {
        "training_run_id": record.id,
        "base_model": record.base_model,
        "model_owner": record.owner,
        "is_lora": record.is_lora,
        "lora_rank": record.rank or None,
        "corrupted": bool(live and live.trainer is None and live.created.finished_at is not None),
        "last_request_time": _time(live.last_request if live else record.last_request_at),
        "last_checkpoint": last.get("training"),
        "last_sampler_checkpoint": last.get("sampler"),
        "user_metadata": _strings(record.user_metadata),
    }


# -- checkpoints


async def run_checkpoints(request: Request) -> JSONResponse:
    library = service_of(request).library
    found = await asyncio.to_thread(library.checkpoints, request.path_params["run_id"])
    return JSONResponse({"checkpoints": [_checkpoint(library, info) for info in found]})


async def user_checkpoints(request: Request) -> JSONResponse:
    library = service_of(request).library

    def everything() -> list[CheckpointInfo]:
        found = [info for record in library.runs() for info in library.store.all_of(record.id)]
        return sorted(found, key=lambda info: info.created_at, reverse=True)

    page, cursor = _page(request, await asyncio.to_thread(everything))
    return JSONResponse({"checkpoints": [_checkpoint(library, info) for info in page], "cursor": cursor})


async def delete_checkpoint(request: Request) -> JSONResponse:
    await asyncio.to_thread(service_of(request).library.delete, _path(request))
    return JSONResponse({})


async def publish_checkpoint(request: Request) -> JSONResponse:
    service_of(request).library.publish(_path(request), request.method == "POST")
    return JSONResponse({})


async def checkpoint_ttl(request: Request) -> JSONResponse:
    body = await read_body(request, bodies.TimeToLive)
    service_of(request).library.set_ttl(_path(request), body.ttl_seconds)
    return JSONResponse({})


async def weights_info(request: Request) -> JSONResponse:
    body = await read_body(request, bodies.TinkerPath)
    info = service_of(request).library.readable(CheckpointPath.parse(body.tinker_path))
    layers = {"train_mlp": info.train_mlp, "train_attn": info.train_attn, "train_unembed": info.train_unembed}
    return JSONResponse({"base_model": info.base_model, "is_lora": info.rank > 0, "lora_rank": info.rank or None, **layers})


def _checkpoint(library: Library, info: CheckpointInfo) -> dict[str, Any]:
    path = CheckpointPath.parse(info.path)
    return {
        "checkpoint_id": f"{path.kind}/{path.name}",
        "checkpoint_type": _TYPES[path.kind],
        "time": _time(info.created_at),
        "tinker_path": info.path,
        "size_bytes": library.store.size(path),
        "public": info.public,
        "user_metadata": _strings(info.user_metadata),
        "expires_at": None if info.expires_at is None else _time(info.expires_at),
    }


# -- files


async def external_weights_urls(request: Request) -> JSONResponse:
    library, path = service_of(request).library, _path(request)
    expires = int(time.time()) + links.SECONDS
    owner = library.run(path.run).owner
    base = str(request.base_url).rstrip("/")
    made = {name: base + request.app.state.links.path(owner, path.run, path.name, name, expires) for name in library.external_files(path)}
    return JSONResponse({"urls": made, "expires": _time(expires)})


async def signed_file(request: Request) -> Response:
    """Asks for no key: the link is the proof. What it isn't good for looks alike, there or not."""
    run, name, file = (request.path_params[part] for part in ("run_id", "name", "file"))
    library = service_of(request).library
    path = CheckpointPath.parse(f"tinker://{run}/external_weights/{name}")
    owner = library.owner(run)
    proof = (request.query_params.get("expires", ""), request.query_params.get("signature", ""))
    if not request.app.state.links.good(owner, run, name, file, *proof):
        return JSONResponse({"detail": "the link isn't good, or no longer: ask for a new one"}, 403)
    with acting_as(owner or ""):
        if file not in library.external_files(path):
            raise NotFound(f"{path} has no file {file[:80]!r}", "Ask for its links again.")
    return FileResponse(library.store.files(path)[file], filename=file, media_type="application/octet-stream")


# -- sessions


async def list_sessions(request: Request) -> JSONResponse:
    page, _ = _page(request, await asyncio.to_thread(_sessions, service_of(request)))
    return JSONResponse({"sessions": [session.id for session, _ in page]})


async def get_session(request: Request) -> JSONResponse:
    service, wanted = service_of(request), request.path_params["session_id"]
    for session, runs in await asyncio.to_thread(_sessions, service):
        if session.id == wanted:
            return JSONResponse(
                {
                    "training_run_ids": runs,
                    "sampler_ids": service.sampling.of_session(session.id),
                    "user_metadata": _strings(session.metadata),
                    "display_name": session.display_name,
                }
            )
    raise NotFound(f"there is no session {wanted[:80]!r}", "Look at the list of sessions.")


async def search_sessions(request: Request) -> JSONResponse:
    body = await read_body(request, bodies.SearchSessions)
    service = service_of(request)
    found = [(session, runs) for session, runs in await asyncio.to_thread(_sessions, service) if _matches(session, body)]
    start = 0
    if body.cursor:
        ids = [session.id for session, _ in found]
        last = body.cursor.get("last_session_id")
        start = ids.index(last) + 1 if last in ids else len(ids)
    page = found[start : start + body.limit]
    more = start + body.limit < len(found)
    last_session = page[-1][0] if page else None
    cursor = {"last_created_at": _time(last_session.created_at), "last_session_id": last_session.id} if more and last_session else None
    return JSONResponse({"sessions": [_summary(service, *entry) for entry in page], "next_cursor": cursor})


def _sessions(service: Service) -> list[tuple[Session, list[str]]]:
    """The owner's, newest first, with their runs: those of this life of the server, and those that left runs behind."""
    found: dict[str, tuple[Session, list[str]]] = {}
    for record in reversed(service.library.runs()):
        gone = Session(record.session, 0.0, record.session_metadata, record.display_name, record.owner, record.created_at)
        found.setdefault(record.session, (gone, []))[1].append(record.id)
    for session in list(service.sessions.values()):
        try:
            service.known_session(session.id)
        except NotFound:
            continue
        found[session.id] = (session, found.get(session.id, (session, []))[1])
    return sorted(found.values(), key=lambda entry: (entry[0].created_at, entry[0].id), reverse=True)


def _matches(session: Session, wanted: bodies.SearchSessions) -> bool:
    if wanted.project_ids:
        raise DataError("this server has no projects", "Leave project_ids out.", where="project_ids")
    named = [wanted.session_id is not None and session.id == wanted.session_id]
    if wanted.display_name:
        title = (session.display_name or "").casefold()
        named.append(all(word in title for word in wanted.display_name.casefold().split()))
    if (wanted.session_id or wanted.display_name) and not any(named):
        return False
    if any(session.metadata.get(key) != value for key, value in wanted.user_metadata.items()):
        return False
    return wanted.statuses is None or any(_has_status(session, status) for status in wanted.statuses)


def _has_status(session: Session, wanted: dict[str, Any]) -> bool:
    status = _status(session) or {}
    reasons = wanted.get("reasons")
    return status.get("type") == wanted.get("type") and (not reasons or status.get("reason", {}).get("type") in reasons)


def _status(session: Session) -> dict[str, Any] | None:
    if session.end is not None:
        return {"type": "client_finished", "reason": session.end.reason.model_dump(), "detail": session.end.detail}
    # One that is known from its runs alone may have ended in any way.
    return {"type": "active"} if session.seen else None


def _summary(service: Service, session: Session, runs: list[str]) -> dict[str, Any]:
    checkpoints = [CheckpointPath.parse(info.path) for run in runs for info in service.store.all_of(run)]
    return {
        "session_id": session.id,
        "created_at": _time(session.created_at),
        "owner": session.owner,
        "project_id": "",
        "status": _status(session),
        "checkpoints_count": len(checkpoints),
        "display_name": session.display_name,
        "user_metadata": _strings(session.metadata),
        "checkpoint_storage_bytes": sum(service.store.size(path) for path in checkpoints),
    }


# -- futures


async def join_sampling_session(request: Request) -> JSONResponse:
    body = await read_body(request, bodies.JoinSamplingSession)
    state = service_of(request).sampler(body.sampling_session_id)
    state.clones += 1
    return JSONResponse({"type": "join_sampling_session", "client_counter": state.clones})


async def retrieve_futures(request: Request) -> JSONResponse:
    """A long poll: what finished since the cursor, or nothing after a while."""
    body = await read_body(request, bodies.RetrieveFutures)
    log = service_of(request).sampler(body.target.sampling_session_id).finished
    log.retrieved(body.retrieved_request_ids)
    seconds = LONGEST_POLL if body.timeout is None else min(max(body.timeout, 0.0), LONGEST_POLL)
    completions, cursor = await log.since(body.prev_cursor, body.target.cloned_sampler_id, seconds)
    return JSONResponse({"completions": completions, "cursor": cursor})


async def cancel_future(request: Request) -> JSONResponse:
    """For samples. A request of a run has its number, and others behind it: it is done or fails, but isn't left out."""
    body = await read_body(request, bodies.CancelFuture)
    future = service_of(request).future(body.request_id)
    if not future.can_be_cancelled:
        raise DataError("only samples can be cancelled", "Wait for it, or finish the session.", where="request_id")
    future.cancel()
    return JSONResponse({})


# -- small things


def _path(request: Request) -> CheckpointPath:
    parts = request.path_params
    return CheckpointPath.parse(f"tinker://{parts['run_id']}/{parts['kind']}/{parts['name']}")


def _page(request: Request, found: list[T]) -> tuple[list[T], dict[str, int]]:
    """The part that the query asks for, and where it lies."""
    try:
        limit, offset = int(request.query_params.get("limit", 20)), int(request.query_params.get("offset", 0))
    except ValueError as error:
        raise DataError("limit and offset have to be whole numbers", "Correct them.", where="limit") from error
    if not (0 <= limit <= MAX_PAGE and offset >= 0):
        raise DataError(f"limit goes from 0 to {MAX_PAGE}, offset from 0", "Correct them.", where="limit")
    return found[offset : offset + limit], {"offset": offset, "limit": limit, "total_count": len(found)}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _strings(metadata: dict[str, Any]) -> dict[str, str] | None:
    return {key: value if isinstance(value, str) else str(value) for key, value in metadata.items()} or None


_CHECKPOINT = "training_runs/{run_id}/checkpoints/{kind}/{name}"
ROUTES: list[tuple[str, str, Callable[[Request], Any]]] = [
    ("GET", "training_runs", training_runs),
    ("GET", "training_runs/{run_id}", training_run),
    ("GET", "training_runs/{run_id}/checkpoints", run_checkpoints),
    ("DELETE", _CHECKPOINT, delete_checkpoint),
    ("POST", f"{_CHECKPOINT}/publish", publish_checkpoint),
    ("DELETE", f"{_CHECKPOINT}/publish", publish_checkpoint),
    ("PUT", f"{_CHECKPOINT}/ttl", checkpoint_ttl),
    ("GET", f"{_CHECKPOINT}/external_weights_urls", external_weights_urls),
    ("GET", "checkpoints", user_checkpoints),
    ("POST", "weights_info", weights_info),
    ("GET", "signed/{run_id}/{name}/{file}", signed_file),
    ("GET", "sessions", list_sessions),
    ("POST", "sessions/search", search_sessions),
    ("GET", "sessions/{session_id}", get_session),
    ("POST", "join_sampling_session", join_sampling_session),
    ("POST", "retrieve_futures", retrieve_futures),
    ("POST", "cancel_future", cancel_future),
]
