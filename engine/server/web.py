"""What routes share: reading a body, finding the service, waiting for a result."""

from __future__ import annotations

import time
from typing import TypeVar

from pydantic import BaseModel as Body
from pydantic import ValidationError
from starlette.requests import Request

from engine.errors import DataError
from engine.server import wire
from engine.server.security import MAX_BODY
from engine.server.service import Service
from engine.server.worker import Future

B = TypeVar("B", bound=Body)


async def read_body(request: Request, kind: type[B]) -> B:
    """The JSON body. Raises DataError that names the field."""
    raw = wire.decompress(await request.body(), request.headers.get("content-encoding"), MAX_BODY)
    try:
        return kind.model_validate_json(raw or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{first['msg']}", "Send the body as the Tinker SDK does.", where=place or "body") from error


def service_of(request: Request) -> Service:
    """The server's memory; asking for it counts as use."""
    service: Service = request.app.state.service
    service.last_request = time.monotonic()
    return service


async def wait_with(request: Request, future: Future, seconds: float) -> bool:
    """Whether the result is there, after at most that long. Whoever waits is alive."""
    session = service_of(request).sessions.get(future.request_id.partition(":")[0])
    if session:
        session.heard()
    return await future.wait(seconds)


async def hung_up(request: Request) -> None:
    """Returns when the client's connection is gone. The body has to have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
