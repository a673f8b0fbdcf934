"""HTTP for OpenAI's API, prefix /v1: the base model and sampler checkpoints, by their names, for any program that speaks it.

Takes the model from the sampler that all share, the conversation's form from the renderer that a checkpoint was trained
with, and where a chat has no system message, the one that it was trained with. Errors have OpenAI's shape; 5xx, which
its clients send again, only for what isn't the client's mistake.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from engine.errors import DataError, EngineError, NotFound
from engine.rendering import Renderer, get_renderer
from engine.server import openai_bodies as bodies
from engine.server import openai_replies as replies
from engine.server.checkpoints import CheckpointInfo, CheckpointPath
from engine.server.openai_call import Call, Failed, written
from engine.server.openai_text import token_bytes
from engine.server.sampler import SampleJob, check_job
from engine.server.security import BodyTooLarge
from engine.server.service import Service
from engine.server.web import hung_up

log = logging.getLogger("thinker.server")
Handler = Callable[[Request], Awaitable[Response]]
OWNER = "thinker"
PREFIXES = ("/v1", "/oai/api/v1")  # OpenAI's own, and where the Tinker cloud has it
CHARACTERS_A_TOKEN = 32  # more than any text has on average


class ContextExceeded(DataError):
    """The prompt leaves no room for an answer."""


def routes() -> list[Route]:
    """The route table."""
    table: list[tuple[str, str, Handler]] = [
        ("GET", "models", models),
        ("GET", "models/{model:path}", model),
        ("POST", "chat/completions", chat_completions),
        ("POST", "completions", completions),
    ]
    found = []
    for prefix in PREFIXES:
        found += [Route(f"{prefix}/{path}", _answered(handler), methods=[method]) for method, path, handler in table]
        found.append(Route(f"{prefix}/{{rest:path}}", _answered(nothing_here), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
    return found


def _answered(handler: Handler) -> Handler:
    """The handler, with errors in OpenAI's shape."""

    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except Failed as error:
            return JSONResponse(error.body, error.status)
        except BodyTooLarge as error:
            return JSONResponse(replies.error_body(str(error)), 413)
        except EngineError as error:
            status, code = (404, "model_not_found") if isinstance(error, NotFound) else (400, None)
            code = "context_length_exceeded" if isinstance(error, ContextExceeded) else code
            message = str(EngineError(error.message, error.next_step))
            return JSONResponse(replies.error_body(message, param=error.where or None, code=code), status)
        except Exception:
            log.exception("a request failed")
            return JSONResponse(replies.error_body("the server failed while answering", "server_error"), 500)

    return answered


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    service.last_request = time.monotonic()
    return service


# -- models


async def models(request: Request) -> Response:
    service = _service(request)
    base = {**_model(service.name, request.app.state.started), "max_model_len": service.base.context}
    listed = await asyncio.to_thread(service.library.listed, "sampler_weights")
    ours = [_checkpoint(info) for info in listed if info.base_model == service.name]
    return JSONResponse({"object": "list", "data": [base, *ours]})


async def model(request: Request) -> Response:
    service, name = _service(request), request.path_params["model"]
    path = _path(service, name)
    found = _checkpoint(service.store.info(path)) if path else _model(service.name, request.app.state.started)
    return JSONResponse({**found, "max_model_len": service.base.context})


async def nothing_here(request: Request) -> Response:
    there = "models, chat/completions and completions"
    message = f"{request.method} {request.url.path[:200]} isn't offered by this server: it has {there} under /v1"
    return JSONResponse(replies.error_body(message, code="unknown_url"), 404)


def _model(name: str, created: float) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(created), "owned_by": OWNER}


def _checkpoint(info: CheckpointInfo) -> dict[str, Any]:
    return {**_model(info.path, info.created_at), "root": info.base_model}


def _path(service: Service, name: str) -> CheckpointPath | None:
    try:
        return service.model(name)
    except EngineError as error:
        error.where = "model"
        raise


# -- answers


async def chat_completions(request: Request) -> Response:
    service = _service(request)
    body = bodies.read(bodies.ChatAsk, await request.body())
    path = _path(service, body.model)
    messages = bodies.read_messages(body.messages)
    known = service.store.info(path).user_metadata if path else {}
    if known.get("system_prompt") and not any(message["role"] == "system" for message in messages):
        messages = [{"role": "system", "content": known["system_prompt"]}, *messages]
    _check_length(service, [message["content"] for message in messages], "messages")
    renderer = await _renderer(request, known.get("renderer", "auto"))
    # On a thread of its own: a long text takes a while, and others are waiting for their next token.
    prompt = await asyncio.to_thread(renderer.prompt, messages)
    job = _job(body, prompt, (*renderer.stop_tokens, *service.base.eos_tokens), renderer.stop_strings)
    if len(job.prompt) >= service.base.context:
        raise _no_room(len(job.prompt), service.base.context, "messages")
    shape = _shape(replies.ChatShape, service, body.model, bool(body.logprobs))
    return await _answer(request, Call(service, path, body, shape, [job], [], renderer, body.top > 0, body.top))


async def completions(request: Request) -> Response:
    service = _service(request)
    body = bodies.read(bodies.CompletionAsk, await request.body())
    path, limit = _path(service, body.model), body.limit
    for prompt in body.prompts:
        _check_length(service, [prompt] if isinstance(prompt, str) else [], "prompt")
    prompts = await asyncio.to_thread(_encoded, service, body.prompts)
    jobs = [_job(body, prompt, service.base.eos_tokens) for prompt in prompts]
    for job in jobs:
        check_job(SampleJob(job.prompt), service.base)
        if len(job.prompt) + min(limit, 1) > service.base.context:
            raise _no_room(len(job.prompt), service.base.context, "prompt")
    given = [prompt if isinstance(prompt, str) else _decoded(service, prompt) for prompt in body.prompts] if body.echo else []
    shape = _shape(replies.CompletionShape, service, body.model, body.logprobs is not None)
    scored = bool(body.logprobs) or (bool(body.echo) and body.logprobs is not None)
    return await _answer(request, Call(service, path, body, shape, jobs, given, None, scored, body.logprobs or 0))


def _job(body: bodies.ChatAsk | bodies.CompletionAsk, prompt: list[int], stop_tokens: Any, stop_strings: Any = ()) -> SampleJob:
    return SampleJob(
        prompt=prompt,
        n=body.n or 1,
        max_tokens=body.limit,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=-1 if body.top_k is None else body.top_k,
        seed=body.seed,
        stop_tokens=tuple(dict.fromkeys(stop_tokens)),
        stop_strings=(*stop_strings, *body.stops),
    )


def _no_room(length: int, context: int, where: str) -> ContextExceeded:
    return ContextExceeded(f"the prompt's {length:,} tokens fill the context of {context:,}", "Send less.", where=where)


def _check_length(service: Service, texts: list[str], where: str) -> None:
    """Before tokens are made of a text that can't fit: that holds up everybody, for half a minute with ten million characters."""
    characters, context = sum(map(len, texts)), service.base.context
    if characters > CHARACTERS_A_TOKEN * context:
        raise ContextExceeded(f"the prompt's {characters:,} characters don't fit into {context:,} tokens", "Send less.", where=where)


def _shape(kind: type[replies.Shape], service: Service, name: str, with_logprobs: bool) -> replies.Shape:
    known: dict[int, bytes] = {}

    def spell(token: int) -> bytes:
        if token not in known:
            known[token] = token_bytes(service.tokenizer, token)
        return known[token]

    return kind(kind.prefix + uuid.uuid4().hex, int(time.time()), name, with_logprobs, spell)


def _encoded(service: Service, prompts: list[str | list[int]]) -> list[list[int]]:
    encode = service.tokenizer.backend_tokenizer.encode
    return [encode(prompt).ids if isinstance(prompt, str) else prompt for prompt in prompts]


def _decoded(service: Service, tokens: list[int]) -> str:
    return service.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


async def _renderer(request: Request, name: str) -> Renderer:
    """By its name; kept, since making one may take a while."""
    state = request.app.state
    if not hasattr(state, "renderers"):
        state.renderers = {}
    if name not in state.renderers:
        state.renderers[name] = await asyncio.to_thread(get_renderer, name, state.service.tokenizer)
    return state.renderers[name]


async def _answer(request: Request, call: Call) -> Response:
    """The whole answer, or its stream once it has begun, so that whatever fails before has a status of its own."""
    if call.body.stream:
        pieces = written(call, live=not call.scored)
        first = await _unless_gone(request, call, anext(pieces, None))
        return _Stream(call, _events(call, first, pieces))
    collected: list[list[replies.Piece]] = [[] for _ in call.choices]

    async def collect() -> None:
        async for piece in written(call, live=False):
            collected[piece.index].append(piece)

    await _unless_gone(request, call, collect())
    return JSONResponse(call.shape.whole([replies.joined(pieces) for pieces in collected], call.usage()))


async def _unless_gone(request: Request, call: Call, wanted: Any) -> Any:
    """What is awaited; given up, and the sampling with it, when the client hangs up meanwhile."""
    work = asyncio.ensure_future(wanted)
    watch = asyncio.create_task(hung_up(request))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        call.over = True
        # The rows end at their next token; nobody reads this.
        raise Failed({"error": "the client hung up", "category": "user"})
    except BaseException:
        call.over = True
        raise
    finally:
        watch.cancel()
        work.cancel()


# -- server-sent events


class _Stream(StreamingResponse):
    """Whatever ends it ends the sampling too."""

    def __init__(self, call: Call, events: AsyncIterator[bytes]):
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._call = call

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._call.over = True


async def _events(call: Call, first: replies.Piece | None, rest: AsyncIterator[replies.Piece]) -> AsyncIterator[bytes]:
    more = {"usage": None} if call.body.include_usage else {}
    openings = [opening for choice in call.choices if (opening := call.shape.opening(choice.index))]
    for opening in openings:
        yield _event({**call.shape.chunk([], **more), "choices": [opening]})
    try:
        piece = first
        while piece is not None:
            if piece:
                yield _event(call.shape.chunk([piece], **more))
            piece = await anext(rest, None)
    except Failed as error:
        yield _event(error.body)
        return
    except Exception:
        # The status is sent already: what is left is to say so in the stream.
        log.exception("a stream broke off")
        yield _event(replies.error_body("the server failed while answering", "server_error"))
        return
    if call.body.include_usage:
        yield _event(call.shape.chunk([], usage=call.usage()))
    yield b"data: [DONE]\n\n"


def _event(values: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(values, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
