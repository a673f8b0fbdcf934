"""What differs between Linux, macOS and Windows, in one place.

Standard library only: `thinker.py` reads this before anything is installed. Takes `system` (a `sys.platform`
string) and `env` wherever the answer is pure, so that all three systems are tested from one. Refuses to know what
the folders, processes and locks are for.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

_CREATE_NEW_PROCESS_GROUP = 0x00000200
_CREATE_NO_WINDOW = 0x08000000
_QUERY_LIMITED_INFORMATION = 0x1000
_STILL_ACTIVE = 259
_ERROR_ACCESS_DENIED = 5
# Windows locks bytes against reading too, so the locked byte lies far beyond any content.
_LOCKED_BYTE = 1 << 30
_UNIX_EPOCH_IN_FILETIME = 116_444_736_000_000_000


def is_windows(system: str = sys.platform) -> bool:
    """True on Windows proper; the Linux inside it (WSL) counts as Linux."""
    return system == "win32"


def is_macos(system: str = sys.platform) -> bool:
    """True on macOS."""
    return system == "darwin"


def is_linux(system: str = sys.platform) -> bool:
    """True on Linux, that inside Windows (WSL) and in containers too."""
    return system.startswith("linux")


def default_home(system: str = sys.platform, env: Mapping[str, str] | None = None, user_home: Path | None = None) -> Path:
    """The usual place for an application's own data; not created."""
    env = os.environ if env is None else env
    user_home = user_home or Path.home()
    if is_windows(system):
        return Path(env.get("LOCALAPPDATA") or user_home / "AppData" / "Local") / "Thinker"
    if is_macos(system):
        return user_home / "Library" / "Application Support" / "Thinker"
    chosen = env.get("XDG_DATA_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    return (Path(chosen) if chosen.startswith("/") else user_home / ".local" / "share") / "thinker"


def venv_python(venv: Path, system: str = sys.platform) -> Path:
    """The interpreter inside a virtual environment."""
    return Path(venv) / "Scripts" / "python.exe" if is_windows(system) else Path(venv) / "bin" / "python"


def site_packages(venv: Path, system: str = sys.platform) -> Path | None:
    """Where a virtual environment keeps its packages; None where there is none."""
    pattern = "Lib/site-packages" if is_windows(system) else "lib/python3*/site-packages"
    # After an upgrade of the system's Python the old version's folder is still there.
    return max(Path(venv).glob(pattern), default=None)


def install_space_gb(system: str = sys.platform) -> int:
    """Free disk space that the requirements need while they are installed (Linux's PyTorch brings CUDA along)."""
    return 3 if is_windows(system) or is_macos(system) else 6


def venv_advice(system: str = sys.platform) -> str:
    """How to get the `venv` module where Python came without it."""
    if is_windows(system) or is_macos(system):
        return "Install Python from python.org, which has it, and start this again with that Python."
    return "On Debian and Ubuntu: sudo apt install python3-venv. Then start this again."


def find_chromium(system: str = sys.platform, env: Mapping[str, str] | None = None, user_home: Path | None = None) -> str | None:
    """A browser of the Chromium family that Playwright can drive; None where there is none."""
    env = os.environ if env is None else env
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge"):
        found = shutil.which(name, path=env.get("PATH", ""))
        if found:
            return found
    return next((str(path) for path in _chromium_places(system, env, user_home or Path.home()) if path.is_file()), None)


def _chromium_places(system: str, env: Mapping[str, str], user_home: Path) -> Iterator[Path]:
    if is_windows(system):
        roots = [Path(env[name]) for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA") if env.get(name)]
        for program in ("Chromium/Application/chrome.exe", "Google/Chrome/Application/chrome.exe", "Microsoft/Edge/Application/msedge.exe"):
            yield from (root / program for root in roots)
    elif is_macos(system):
        for name in ("Chromium", "Google Chrome", "Microsoft Edge"):
            yield from (root / "Applications" / f"{name}.app/Contents/MacOS/{name}" for root in (Path("/"), user_home))
    else:
        yield from (Path(place) for place in ("/snap/bin/chromium", "/opt/google/chrome/chrome"))


def give_back_memory(system: str = sys.platform) -> bool:
    """Hands freed memory back to the system where the C library would keep it (glibc, for each of its arenas); False elsewhere."""
    if not system.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):  # another C library, such as musl
        return False


def nvidia_present(proc: Path = Path("/proc"), env: Mapping[str, str] | None = None) -> bool:
    """True when an NVIDIA driver is installed, whether or not PyTorch can use it."""
    env = os.environ if env is None else env
    return shutil.which("nvidia-smi", path=env.get("PATH", "")) is not None or (proc / "driver" / "nvidia").exists()


def cpu_torch_beside_nvidia(
    venv: Path, system: str = sys.platform, env: Mapping[str, str] | None = None, proc: Path = Path("/proc")
) -> bool:
    """True when a GPU is here that the environment's PyTorch was built without; found without importing it."""
    packages = site_packages(venv, system)
    try:
        version = (packages / "torch" / "version.py").read_text(encoding="utf-8") if packages else ""
    except OSError:
        return False
    # PyTorch's wheels for Windows are CPU builds without "+cpu" in their version, so the CUDA version that it names decides.
    return re.search(r"^cuda\b.*= None", version, re.MULTILINE) is not None and nvidia_present(proc, env)


def can_open_browser(system: str = sys.platform, env: Mapping[str, str] | None = None) -> bool:
    """True when somebody sits at this machine's screen, as far as the environment tells."""
    env = os.environ if env is None else env
    if env.get("CI") or env.get("SSH_CONNECTION"):
        return False
    return is_windows(system) or is_macos(system) or bool(env.get("DISPLAY") or env.get("WAYLAND_DISPLAY"))


def lock_file(handle: IO[Any], system: str = sys.platform) -> bool:
    """Take the exclusive lock on an open file without waiting; False when somebody else has it. Dies with its holder."""
    try:
        if is_windows(system):
            _windows_lock(handle, "LK_NBLCK")
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def unlock_file(handle: IO[Any], system: str = sys.platform) -> None:
    """Give back what `lock_file` took; closing the file does the same."""
    if is_windows(system):
        _windows_lock(handle, "LK_UNLCK")
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_UN)


def _windows_lock(handle: IO[Any], mode: str) -> None:
    import msvcrt

    # Windows locks from where the file stands, and the caller goes on reading and writing there.
    place = os.lseek(handle.fileno(), 0, os.SEEK_CUR)
    try:
        os.lseek(handle.fileno(), _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(handle.fileno(), getattr(msvcrt, mode), 1)
    finally:
        os.lseek(handle.fileno(), place, os.SEEK_SET)


def private_file(path: Path, system: str = sys.platform) -> Path:
    """Make a file only its owner can read, empty if it is new: call it before the secret is written.

    Windows has no such mode: there the user's own folder keeps others out.
    """
    path = Path(path)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        # One that is private already may lie where nothing can be changed.
        if not is_windows(system) and path.stat().st_mode & 0o077:
            path.chmod(0o600)
    return path


def sync_path(path: Path, system: str = sys.platform) -> None:
    """To the disk with a file, or with a folder's list of files. Windows can't sync a folder: its renames are journalled."""
    folder = Path(path).is_dir()
    if folder and is_windows(system):
        return
    # Windows syncs only what is open for writing.
    handle = os.open(path, os.O_RDWR if is_windows(system) else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def detached_process_options(system: str = sys.platform) -> dict[str, Any]:
    """For `subprocess.Popen`: a child that outlives its parent, has no console and hears no Ctrl-C. Takes stdin; output is the caller's."""
    if is_windows(system):
        return {"stdin": subprocess.DEVNULL, "creationflags": _CREATE_NEW_PROCESS_GROUP | _CREATE_NO_WINDOW}
    return {"stdin": subprocess.DEVNULL, "start_new_session": True}


def process_alive(pid: int) -> bool:
    """True while the process runs. One that ended and waits to be reaped by its parent doesn't count."""
    if pid <= 0:
        return False
    if sys.platform == "win32":
        return _windows_alive(pid, ctypes.WinDLL("kernel32", use_last_error=True), ctypes.get_last_error)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = _linux_stat(pid) if sys.platform == "linux" else None
    state = stat[0] if stat else _ps(pid, "state")
    return not state.startswith("Z")


def process_started_at(pid: int) -> float | None:
    """When the process started, in seconds on a scale that stays as it is while the machine runs, however its clock is set; None when
    it's gone. Compare by `same_process`: macOS knows whole seconds only."""
    if pid <= 0:
        return None
    if sys.platform == "win32":
        return _windows_started_at(pid, ctypes.WinDLL("kernel32", use_last_error=True))
    stat = _linux_stat(pid) if sys.platform == "linux" else None
    if stat:
        return _boot_mark() + int(stat[19]) / os.sysconf("SC_CLK_TCK")
    return parse_lstart(_ps(pid, "lstart"))


def same_process(pid: int, started_at: float | None) -> bool:
    """True when `pid` runs and is the process that started then, not a later one that got the same number."""
    if started_at is None or not process_alive(pid):
        return False
    now = process_started_at(pid)
    return now is not None and abs(now - started_at) <= 2.0


def terminate(pid: int) -> bool:
    """Ask a process to end (Windows ends it at once); False when it was gone already."""
    return _signal(pid, signal.SIGTERM)


def kill(pid: int) -> bool:
    """End a process at once; False when it was gone already."""
    return _signal(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def replace_process(command: Sequence[str], env: Mapping[str, str], system: str = sys.platform) -> NoReturn:
    """Become another program. Windows can't: there it runs below this process, which passes Ctrl-C and the exit code on."""
    sys.stdout.flush()
    sys.stderr.flush()
    if not is_windows(system):
        os.execve(command[0], list(command), dict(env))
    with subprocess.Popen(list(command), env=dict(env)) as child:
        while True:
            # The child hears Ctrl-C too, and decides by itself what to do about it.
            with suppress(KeyboardInterrupt):
                sys.exit(child.wait())


def reuse_address(listener: socket.socket, system: str = sys.platform) -> None:
    """Let a port be bound again right after its server ended. Windows allows that anyway, and there the option would let two share it."""
    if not is_windows(system):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def port_is_free(port: int, system: str = sys.platform) -> bool:
    """True when a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        reuse_address(probe, system)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    # macOS lets a bind to one address succeed while another program listens on all.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as caller:
        caller.settimeout(1.0)
        return caller.connect_ex(("127.0.0.1", port)) != 0


def parse_lstart(text: str) -> float | None:
    """Seconds since 1970 from `ps -o lstart=`, as in "Mon Jan  5 09:30:00 2026" (local time); None for anything else."""
    try:
        return time.mktime(time.strptime(" ".join(text.split()), "%a %b %d %H:%M:%S %Y"))
    except ValueError:
        return None


def _signal(pid: int, which: int) -> bool:
    # 0 and negative numbers mean whole groups of processes to the system.
    if pid <= 0:
        raise ValueError(f"not a process id: {pid}")
    if not process_alive(pid):
        return False
    try:
        os.kill(pid, which)
    except ProcessLookupError:
        return False
    return True


def _linux_stat(pid: int) -> list[str] | None:
    # The second field is the name in brackets, which may itself hold spaces and brackets; [0] is the state, [19] the start.
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _boot_mark(proc: Path = Path("/proc")) -> float:
    """A number of this boot of the machine. When it was booted would do, but Linux reckons that back from the clock, and with it the clock
    is set a process would seem to be another."""
    try:
        return float(int((proc / "sys/kernel/random/boot_id").read_text(encoding="ascii")[:8], 16))
    except (OSError, ValueError):
        return _boot_time(proc)


def _boot_time(proc: Path) -> float:
    for line in (proc / "stat").read_text(encoding="utf-8").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def _ps(pid: int, column: str) -> str:
    try:
        answer = subprocess.run(
            ["ps", "-o", f"{column}=", "-p", str(pid)],
            check=False,
            capture_output=True,
            text=True,
            timeout=10,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def _windows_alive(pid: int, kernel32: Any, last_error: Any) -> bool:
    handle = _open_process(kernel32, pid)
    if not handle:
        return last_error() == _ERROR_ACCESS_DENIED
    try:
        code = ctypes.c_ulong()
        return bool(kernel32.GetExitCodeProcess(handle, ctypes.byref(code))) and code.value == _STILL_ACTIVE
    finally:
        kernel32.CloseHandle(handle)


def _windows_started_at(pid: int, kernel32: Any) -> float | None:
    handle = _open_process(kernel32, pid)
    if not handle:
        return None
    try:
        created, ended, in_kernel, in_user = (ctypes.c_ulonglong() for _ in range(4))
        if not kernel32.GetProcessTimes(handle, *(ctypes.byref(when) for when in (created, ended, in_kernel, in_user))):
            return None
        return (created.value - _UNIX_EPOCH_IN_FILETIME) / 1e7
    finally:
        kernel32.CloseHandle(handle)


def _open_process(kernel32: Any, pid: int) -> Any:
    # A 64-bit handle is cut to 32 bits unless ctypes is told its type; it's wrapped so that each later call passes it whole.
    kernel32.OpenProcess.restype = ctypes.c_void_p
    handle = kernel32.OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
    return ctypes.c_void_p(handle) if handle else None
