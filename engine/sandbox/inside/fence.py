"""What shuts a program off once it runs inside: another user, Landlock, limits, a filter of system calls. Standard library only.

The server of programs goes behind the first half, each program behind the second too. Knows no program.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Sequence

import landlock
import syscalls

# Beyond the users of any machine; one for each sandbox, so that none counts or reaches the processes of another.
_USERS, _COUNT = 1_900_000_000, 60_000
_NOBODY = 65_534
_SET_PARENT_DEATH, _KILLED, _DROP_BOUND, _LAST_CAPABILITY = 1, 9, 24, 63
_CAPABILITIES = 0x20080522
_THREADS = 64


def around_server(readable: Sequence[str]) -> None:
    """For the process that starts programs. Without `readable` files are somebody else's business (bubblewrap's, Docker's).

    Raises OSError where that can't be done.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not readable:
        return
    _be_nobody()
    landlock.restrict(readable, ["/dev/null"])


def around_program(seconds: float, memory: int) -> None:
    """For a process that is about to run a program. `seconds` of the processor, bytes of address space. Raises OSError."""
    libc = ctypes.CDLL(None)
    # With the server goes what it started.
    libc.prctl(_SET_PARENT_DEATH, _KILLED, 0, 0, 0)
    cpu = max(1, int(seconds) + 1)
    limits = {"CPU": (cpu, cpu + 1), "AS": (memory, memory), "FSIZE": (0, 0), "NOFILE": (64, 64), "MEMLOCK": (0, 0), "MSGQUEUE": (0, 0)}
    if not syscalls.known() or os.getuid() >= _NOBODY:
        # Counted for each user: where that is a person, their other programs would count too, and the filter refuses processes anyway.
        limits["NPROC"] = (_THREADS, _THREADS)
    for name, values in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), values)
    os.nice(5)
    if syscalls.known():
        syscalls.apply()


def _be_nobody() -> None:
    """Root becomes a user that owns nothing, or gives up what makes it root where Python's own files are readable by root alone."""
    if os.geteuid() != 0:
        return
    for user in (_USERS + os.getpid() % _COUNT, _NOBODY):
        try:
            os.seteuid(user)
        except OSError:
            continue
        readable = all(os.access(place, os.R_OK | os.X_OK, effective_ids=True) for place in (os.path.dirname(os.__file__), sys.prefix))
        os.seteuid(0)
        if readable:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            return
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_LAST_CAPABILITY + 1):
        libc.prctl(_DROP_BOUND, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    none = (ctypes.c_uint32 * 6)()
    if libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "root's capabilities couldn't be given up")
