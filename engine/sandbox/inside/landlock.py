"""Landlock: the kernel lets this process read what is named, write nothing but what is named, and reach no network (Linux 5.13 or newer).

Standard library only, no rights needed. Knows no program. See https://docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_SET_NO_NEW_PRIVS = 38
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE, _IOCTL = 1, 2, 4, 8, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE | _IOCTL
_BELOW_A_PATH = 1


def version() -> int:
    """Which of its versions the kernel has; 0 for none."""
    try:
        found = ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, ctypes.c_size_t(0), 1)
    except (OSError, AttributeError):
        return 0
    return max(0, found)


def restrict(readable: Iterable[str], writable: Iterable[str]) -> None:
    """From here on this process and what it starts reads only below `readable`, and writes only the files `writable`. Raises OSError."""
    found = version()
    if not found:
        raise OSError("this kernel has no Landlock")
    handled = (1 << 13) - 1
    handled |= (1 << 13 if found >= 2 else 0) | (_TRUNCATE if found >= 3 else 0) | (_IOCTL if found >= 5 else 0)
    # No TCP (4); no signals and no abstract sockets to the outside (6).
    attributes = struct.pack("QQQ", handled, 3 if found >= 4 else 0, 3 if found >= 6 else 0)
    attributes = attributes[: 24 if found >= 6 else 16 if found >= 4 else 8]
    libc = ctypes.CDLL(None, use_errno=True)
    rules = libc.syscall(_CREATE, ctypes.create_string_buffer(attributes, len(attributes)), ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "Landlock gave no ruleset")
    allowed = [(path, _EXECUTE | _READ | _LIST) for path in readable]
    allowed += [(path, _READ | _WRITE) for path in writable]
    for path, rights in allowed:
        if os.path.exists(path):
            _allow(libc, rules, path, rights)
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(_RESTRICT, rules, 0):
        raise OSError(ctypes.get_errno(), "Landlock refused")
    os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack("=Qi", rights if os.path.isdir(path) else rights & _OF_FILES, place)
    failed = libc.syscall(_ADD, rules, _BELOW_A_PATH, ctypes.create_string_buffer(rule, len(rule)), 0)
    os.close(place)
    if failed:
        raise OSError(ctypes.get_errno(), "Landlock refused a rule", path)
