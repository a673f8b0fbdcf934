"""HTTP for the Tinker wire, prefix /api/v1: parses, asks the service, answers. No decisions are made here.

Statuses matter to the official SDK: it retries 408, 409, 429 and 5xx, for minutes or for ever, so whatever is the
client's own mistake, and every id of an earlier life of the server, is answered with another 4xx at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engine.errors import EngineError, NotFound, StateError
from engine.server import openai_api, rest, wire
from engine.server import requests as bodies
from engine.server.links import Links
from engine.server.losses import LOSSES
from engine.server.security import MAX_BODY, BodyTooLarge
from engine.server.service import Service
from engine.server.trainer import read_checked
from engine.server.web import read_body, service_of, wait_with
from engine.server.worker import Future
from engine.system import folder_id

log = logging.getLogger("thinker.server")
POLL_SECONDS = 20.0  # below the SDK's 45 s time-out
UPKEEP_SECONDS = 5.0
LARGE_BODY = 2**18  # bytes, from which a training request is read on another thread

T = TypeVar("T")


def build_app(
    make_service: Callable[[], Service],
    *,
    compress: bool,
    on_idle: Callable[[float], None] | None = None,
    keys: Mapping[str, str] | None = None,
) -> Starlette:
    """The application. `make_service` runs on the event loop; `on_idle` is told the idle seconds every few seconds.

    `keys` sign the links to files; who may come in at all is the Guard's business.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = make_service()
        app.state.service = service
        app.state.boot_id = os.urandom(8).hex()
        app.state.started = time.time()
        app.state.compress = compress
        app.state.links = Links(keys)
        service.worker.start()
        keeper = asyncio.create_task(_keep_up(service, on_idle))
        yield
        keeper.cancel()
        await asyncio.to_thread(service.worker.stop)

    routes = [Route(f"/api/v1/{path}", handler, methods=[method]) for method, path, handler in [*_ROUTES, *rest.ROUTES]]
    routes += openai_api.routes()
    handlers: dict[Any, Any] = {EngineError: _on_engine_error, BodyTooLarge: _on_large_body}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


async def _keep_up(service: Service, on_idle: Callable[[float], None] | None) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(UPKEEP_SECONDS)
        # While this process couldn't run, or the machine slept, nobody could be heard.
        deaf = time.monotonic() - began - UPKEEP_SECONDS
        for session in service.sessions.values():
            session.seen += deaf
        service.upkeep()
        if on_idle:
            on_idle(service.idle_seconds())


# -- answers and errors


async def _on_engine_error(request: Request, error: EngineError) -> JSONResponse:
    # Never 5xx, not even for a full disk: the client would post again for minutes instead of telling anybody.
    return JSONResponse({"detail": str(error), **error.to_dict()}, 404 if isinstance(error, NotFound) else 400)


async def _on_large_body(request: Request, error: BodyTooLarge) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 413)


def _promise(future: Future, **more: Any) -> JSONResponse:
    return JSONResponse({"request_id": future.request_id, **more})


# -- service


async def healthz(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def status(request: Request) -> JSONResponse:
    """Ours, not Tinker's: which life of which server this is. Doesn't count as use."""
    service: Service = request.app.state.service
    base = service.base
    return JSONResponse(
        {
            "boot_id": request.app.state.boot_id,
            "pid": os.getpid(),
            "started_at": request.app.state.started,
            "base_model": service.name,
            "device": base.device,
            "dtype": str(base.dtype).removeprefix("torch."),
            "parameters": base.parameters,
            "losses": list(LOSSES),
            "full": True,
            "runs": len(service.runs),
            "waiting": service.worker.waiting,
            "busy": service.worker.busy,
            "sessions": sum(not session.finished for session in service.sessions.values()),
            "storage": folder_id(service.store.root),
        }
    )


async def client_config(request: Request) -> JSONResponse:
    return JSONResponse(
        {
            "pjwt_auth_enabled": False,
            "parallel_fwdbwd_chunks": True,
            "proto_compress_fwdbwd": request.app.state.compress,
            "use_pyqwest_transport": False,
            "sample_use_retrieve_futures": False,
            "custom_loss_server_side": False,
            "sample_join_sampling_session": True,
        },
        # The SDK asks this over a connection of its own, which it never uses again and never closes.
        headers={"Connection": "close"},
    )


async def dynamic_config(request: Request) -> JSONResponse:
    return JSONResponse({"refresh_interval_sec": 300, "sample_cancel_enabled": True})


async def capabilities(request: Request) -> JSONResponse:
    service = service_of(request)
    model = {"model_name": service.name, "max_context_length": service.base.context, "trainable": True, "sampleable": True}
    return JSONResponse({"supported_models": [model]})


async def telemetry(request: Request) -> JSONResponse:
    """Accepted and thrown away."""
    await request.body()
    return JSONResponse({"status": "accepted"})


async def create_session(request: Request) -> JSONResponse:
    body = await read_body(request, bodies.CreateSession)
    session = service_of(request).create_session(body.user_metadata, body.display_name)
    return JSONResponse({"session_id": session.id, "type": "create_session"})


async def session_heartbeat(request: Request) -> JSONResponse:
    body = await read_body(request, bodies.Heartbeat)
    service = service_of(request)
    try:
        service.session(body.session_id)
    except (NotFound, StateError):
        return JSONResponse({"detail": "the session has ended"}, 410)
    return JSONResponse({"type": "session_heartbeat"})


async def finish_session(request: Request) -> JSONResponse:
    body = await read_body(request, bodies.FinishSession)
    service_of(request).finish_session(request.path_params["session_id"], body)
    return JSONResponse({})


# -- training


async def create_model(request: Request) -> JSONResponse:
    future, model_id = service_of(request).create_model(await read_body(request, bodies.CreateModel))
    return _promise(future, model_id=model_id)


async def get_info(request: Request) -> JSONResponse:
    body = await read_body(request, bodies.GetInfo)
    service = service_of(request)
    run = service.run(body.model_id)
    data = {"arch": service.base.architecture, "model_name": service.name, "tokenizer_id": service.tokenizer_id}
    return JSONResponse(
        {
            "type": "get_info",
            "model_id": run.id,
            "model_name": service.name,
            "model_data": data,
            "is_lora": run.spec.is_lora,
            "lora_rank": run.spec.rank or None,
        }
    )


async def forward_backward(request: Request) -> JSONResponse:
    service = service_of(request)
    body = await request.body()
    if request.headers.get("content-encoding"):
        body = await asyncio.to_thread(wire.decompress, body, request.headers["content-encoding"], MAX_BODY)
    large = len(body) > LARGE_BODY
    message = await asyncio.to_thread(wire.read_train_header, body) if large else wire.read_train_header(body)
    read = partial(read_checked, message, service.base)
    if large:
        # Others are answered meanwhile. What it came to, an error maybe, is the answer in the request's turn.
        read = await asyncio.to_thread(_settled, read)
    return _promise(service.train(message, read))


def _settled(work: Callable[[], T]) -> Callable[[], T]:
    try:
        found = work()
    except EngineError as error:
        mistake = error

        def fail() -> T:
            raise mistake

        return fail
    return lambda: found


async def optim_step(request: Request) -> JSONResponse:
    return _promise(service_of(request).optim_step(await read_body(request, bodies.OptimStep)))


async def save_weights(request: Request) -> JSONResponse:
    return _promise(service_of(request).save_weights(await read_body(request, bodies.SaveWeights)))


async def load_weights(request: Request) -> JSONResponse:
    return _promise(service_of(request).load_weights(await read_body(request, bodies.LoadWeights)))


async def save_weights_external(request: Request) -> JSONResponse:
    return _promise(service_of(request).save_external(await read_body(request, bodies.SaveWeights)))


async def save_weights_for_sampler(request: Request) -> JSONResponse:
    return _promise(service_of(request).save_for_sampler(await read_body(request, bodies.SaveForSampler)))


# -- sampling


async def create_sampling_session(request: Request) -> JSONResponse:
    state = service_of(request).create_sampling_session(await read_body(request, bodies.CreateSamplingSession))
    return JSONResponse({"sampling_session_id": state.id, "type": "create_sampling_session"})


async def get_sampler(request: Request) -> JSONResponse:
    service = service_of(request)
    state = service.sampler(request.path_params["sampler_id"])
    path = str(state.path) if state.path else None
    # The SDK loads the tokenizer by this name, so it has to be one that resolves where the client runs.
    return JSONResponse({"sampler_id": state.id, "base_model": service.tokenizer_id, "model_path": path})


async def asample(request: Request) -> JSONResponse:
    body = await read_body(request, bodies.Sample)
    future = service_of(request).sample(body)
    return _promise(future, sample_sequence_ids=[f"{future.request_id}:{i}" for i in range(body.num_samples)])


async def retrieve_future(request: Request) -> Response:
    """A long poll: the result as soon as it is there, 408 after a while without one (the SDK asks again)."""
    body = await read_body(request, bodies.RetrieveFuture)
    future = service_of(request).future(body.request_id)
    if not await wait_with(request, future, POLL_SECONDS):
        pending = {"type": "try_again", "request_id": future.request_id, "queue_state": "active"}
        return JSONResponse(pending, 408)
    future.retrieved_at = time.monotonic()
    if isinstance(future.result, bytes):
        return Response(future.result, media_type="application/x-protobuf")
    return Response(json.dumps(future.result), media_type="application/json")


_ROUTES: list[tuple[str, str, Callable[[Request], Any]]] = [
    ("GET", "healthz", healthz),
    ("GET", "thinker/status", status),
    ("POST", "client/config", client_config),
    ("POST", "client/dynamic_config", dynamic_config),
    ("GET", "get_server_capabilities", capabilities),
    ("POST", "telemetry", telemetry),
    ("POST", "create_session", create_session),
    ("POST", "session_heartbeat", session_heartbeat),
    ("POST", "sessions/{session_id}/finish", finish_session),
    ("POST", "create_model", create_model),
    ("POST", "get_info", get_info),
    ("POST", "forward_backward", forward_backward),
    ("POST", "optim_step", optim_step),
    ("POST", "save_weights", save_weights),
    ("POST", "load_weights", load_weights),
    ("POST", "save_weights_external", save_weights_external),
    ("POST", "save_weights_for_sampler", save_weights_for_sampler),
    ("POST", "create_sampling_session", create_sampling_session),
    ("GET", "samplers/{sampler_id}", get_sampler),
    ("POST", "asample", asample),
    ("POST", "retrieve_future", retrieve_future),
]
