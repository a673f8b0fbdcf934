"""What this machine can shut programs off with: bubblewrap, Landlock or Docker, in this order; and how the server is started in each.

Knows commands and what is looked for; nothing of programs and their results.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine import platforms

INSIDE = Path(__file__).with_name("inside")
IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
# A library for arrays would start a thread for each core, each with a stack that counts as memory.
ENVIRONMENT = {"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/nix/store")
_FILES = ("/etc/ld.so.cache", "/dev/null", "/dev/urandom", "/dev/zero")
_ASKING_DOCKER = 10.0  # seconds


@dataclass(frozen=True)
class Mechanism:
    """`missing` says what it lacks here as far as can be seen from outside; `command` starts the server for so many programs at once."""

    name: str
    title: str
    missing: Callable[[], str]
    command: Callable[[int], list[str]]


def python_folders() -> list[str]:
    """Where the interpreter, its library and installed packages lie; of a virtual environment nothing that may stand beside them."""
    found = []
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix)):
        found += [os.path.join(prefix, name) for name in ("bin", "lib", "lib64", "pyvenv.cfg")]
    known = sysconfig.get_paths()
    found += [known[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return list(dict.fromkeys(path for path in found if os.path.exists(path)))


def _server(*arguments: str) -> list[str]:
    return [sys.executable, "-I", str(INSIDE), *arguments]


def _no_bubblewrap() -> str:
    return "" if platforms.is_linux() and shutil.which("bwrap") else "bubblewrap isn't installed"


def _bubblewrap(at_once: int) -> list[str]:
    command = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"]
    command += ["--new-session", "--clearenv", "--chdir", "/"]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    for path in _SYSTEM:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            command += ["--ro-bind", path, path]
    command += ["--dir", "/dev"]
    for path in _FILES:
        command += ["--dev-bind-try" if path.startswith("/dev") else "--ro-bind-try", path, path]
    for path in (*python_folders(), str(INSIDE)):
        command += ["--ro-bind", path, path]
    # Last, so that nothing can be written in the empty root either.
    return [*command, "--remount-ro", "/", "--", *_server(str(at_once))]


def _no_landlock() -> str:
    if not platforms.is_linux():
        return "Landlock is a part of Linux"
    from engine.sandbox.inside import landlock, syscalls

    if not syscalls.known():
        return "Landlock alone leaves the network open, and the system calls of this processor aren't known here"
    return "" if landlock.version() else "the kernel has no Landlock (Linux 5.13 has it, where it is switched on)"


def _landlock(at_once: int) -> list[str]:
    readable = [path for path in (*_SYSTEM, *_FILES, *python_folders()) if os.path.exists(path)]
    return _server(str(at_once), *readable)


def _no_docker() -> str:
    tool = shutil.which("docker")
    if tool is None:
        return "Docker isn't installed"
    try:
        asked = subprocess.run([tool, "image", "inspect", IMAGE], capture_output=True, text=True, timeout=_ASKING_DOCKER, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"Docker doesn't answer ({type(error).__name__})"
    if asked.returncode == 0:
        return ""
    lacks = "No such image" in asked.stderr or "not found" in asked.stderr.lower()
    return f"Docker lacks the image {IMAGE}: docker pull {IMAGE}" if lacks else "Docker doesn't answer: is it started?"


def _docker(at_once: int) -> list[str]:
    command = [shutil.which("docker") or "docker", "run", "--rm", "--interactive", "--pull", "never", "--network", "none", "--read-only"]
    command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "65534:65534", "--ipc", "none", "--workdir", "/"]
    command += ["--pids-limit", str(64 * at_once), "--memory", f"{at_once + 1}g", "--cpus", str(at_once), "--log-driver", "none"]
    for name, value in ENVIRONMENT.items():
        command += ["--env", f"{name}={value}"]
    return [*command, "--volume", f"{INSIDE}:/inside:ro", IMAGE, "python", "-I", "/inside", str(at_once)]


MECHANISMS = (
    Mechanism("bubblewrap", "bubblewrap", _no_bubblewrap, _bubblewrap),
    Mechanism("landlock", "Landlock", _no_landlock, _landlock),
    Mechanism("docker", "Docker", _no_docker, _docker),
)
