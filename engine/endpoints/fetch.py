"""Weights from an endpoint elsewhere to this machine: packed there as a PEFT folder, then fetched file by file over signed links.

Packing needs the SDK, so it happens in a process of its own (`apart`). What was packed is deleted there after a day. Knows nothing of runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from engine.amounts import size
from engine.endpoints import apart, named
from engine.errors import EndpointError, StateError, StorageError
from engine.store import artefacts

SECONDS = 1800.0
KEPT_S = 86400  # for which the packed copy stays there
_NAMES = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def pack(url: str, key: str, path: str) -> str:
    """Has a `weights` checkpoint packed. -> the packed one's path. Raises EndpointError."""
    asked, advice = {"url": url, "key": key, "path": path}, "See that it is still there, then try again."
    return apart.ask("engine.endpoints.fetch", asked, SECONDS, "packing the weights", advice=advice, where=path)["path"]


def files(links: Mapping[str, str], target: Path, say: Callable[[str], None], most: int | None = None) -> None:
    """Fetches {file name: link} into a folder that appears once it is whole. Raises EndpointError, StateError over `most` bytes,
    StorageError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rmdir()
    with artefacts.whole_folder(target) as folder:
        taken = 0
        for name, link in sorted(links.items()):
            if not name or set(name) - _NAMES or name.startswith("."):
                raise EndpointError(f"the server offers a file with the odd name {name[:60]!r}", "Ask whoever runs it.")
            taken += _fetch(link, folder / name, say, taken, most)


def _fetch(link: str, file: Path, say: Callable[[str], None], before: int, most: int | None) -> int:
    taken, told = 0, 0.0
    trust = not named.nearby(httpx.URL(link).host)
    try:
        with (
            httpx.Client(timeout=60.0, trust_env=trust, follow_redirects=True) as client,
            client.stream("GET", link) as reply,
            file.open("wb") as handle,
        ):
            reply.raise_for_status()
            wanted = int(reply.headers.get("content-length", 0)) if not reply.headers.get("content-encoding") else 0
            for piece in reply.iter_bytes(1 << 20):
                handle.write(piece)
                taken += len(piece)
                if most is not None and before + taken > most:
                    raise StateError(
                        f"it weighs more than {size(most)}, too much for a zip", "Fetch it as a folder instead.", where=file.name
                    )
                if time.monotonic() - told > 0.5:
                    told = time.monotonic()
                    say(f"fetching {file.name}: {size(taken)}" + (f" of {size(wanted)}" if wanted else ""))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        told_ = f"status {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else type(error).__name__
        raise EndpointError(f"{file.name} couldn't be fetched: {told_}", "Try again.", where=file.name) from error
    except OSError as error:
        raise StorageError(f"{file.name} can't be written: {error.strerror}", "Make room, then try again.", where=file.name) from error
    if wanted and taken != wanted:
        raise EndpointError(f"only {size(taken)} of {size(wanted)} came of {file.name}", "Try again.", where=file.name)
    return taken


def _packed(url: str, key: str, path: str) -> str:
    from engine.endpoints.client import load_sdk

    tinker = load_sdk()
    service = tinker.ServiceClient(base_url=url, api_key=key, user_metadata={"purpose": "export"})
    try:
        training = service.create_training_client_from_state(path).result(timeout=SECONDS / 2)
        name = f"{path.rpartition('/')[2]}-{int(time.time()):x}"
        return training.save_weights_external(name, ttl_seconds=KEPT_S).result(timeout=SECONDS / 2).path
    finally:
        service.close("success").result(timeout=5)


if __name__ == "__main__":
    apart.answer(lambda asked: {"path": _packed(**asked)})
