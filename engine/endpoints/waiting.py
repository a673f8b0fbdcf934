"""Waiting for what takes long without going deaf: it is done on a thread of its own, and whoever waits is called several times a second.

Knows nothing of what is waited for.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

SLICE_SECONDS = 0.25


def on_a_thread(call: Callable[[], Any]) -> concurrent.futures.Future:
    """For what gives no future and may try for minutes. A daemon, so that nobody ever waits for its end."""
    future: concurrent.futures.Future = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="waited-for", daemon=True).start()
    return future


def heeding(call: Callable[[], Any], heed: Callable[[], object] | None) -> Any:
    """What the call gives. `heed` is called meanwhile, and ends the waiting by raising; without it this is the call alone."""
    if heed is None:
        return call()
    future = on_a_thread(call)
    while True:
        heed()
        if concurrent.futures.wait([future], timeout=SLICE_SECONDS).done:
            return future.result()
