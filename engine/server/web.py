"""What all routes share: reading a body, finding the service."""

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
