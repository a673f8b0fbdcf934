"""What differs between systems: pure answers for all three; processes, locks and modes on the system at hand."""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from engine import platforms

LINUX, MACOS, WINDOWS = "linux", "darwin", "win32"
ALL = (LINUX, MACOS, WINDOWS)
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")


@pytest.mark.parametrize(
    ("system", "env", "expected"),
    [
        (LINUX, {}, "/home/ada/.local/share/thinker"),
        (LINUX, {"XDG_DATA_HOME": "/data"}, "/data/thinker"),
        (LINUX, {"XDG_DATA_HOME": "relative"}, "/home/ada/.local/share/thinker"),
        (MACOS, {"XDG_DATA_HOME": "/data"}, "/home/ada/Library/Application Support/Thinker"),
        (WINDOWS, {}, "/home/ada/AppData/Local/Thinker"),
        (WINDOWS, {"LOCALAPPDATA": "/d/Local"}, "/d/Local/Thinker"),
    ],
)
def test_default_home(system: str, env: dict[str, str], expected: str) -> None:
    assert platforms.default_home(system, env, Path("/home/ada")).as_posix() == expected


@pytest.mark.parametrize(("system", "expected"), [(LINUX, "v/bin/python"), (MACOS, "v/bin/python"), (WINDOWS, "v/Scripts/python.exe")])
def test_venv_python(system: str, expected: str) -> None:
    assert platforms.venv_python(Path("v"), system).as_posix() == expected


@pytest.mark.parametrize(
    ("system", "made", "expected"),
    [
        (LINUX, ["lib/python3.11/site-packages", "lib/python3.12/site-packages"], "lib/python3.12/site-packages"),
        (MACOS, ["lib/python3.13/site-packages"], "lib/python3.13/site-packages"),
        (WINDOWS, ["Lib/site-packages"], "Lib/site-packages"),
    ],
)
def test_site_packages(tmp_path: Path, system: str, made: list[str], expected: str) -> None:
    assert platforms.site_packages(tmp_path, system) is None
    for folder in made:
        (tmp_path / folder).mkdir(parents=True)
    assert platforms.site_packages(tmp_path, system) == tmp_path / expected


@pytest.mark.parametrize(("system", "gigabytes", "advice"), [(LINUX, 6, "apt"), (MACOS, 3, "python.org"), (WINDOWS, 3, "python.org")])
def test_what_an_installation_needs(system: str, gigabytes: int, advice: str) -> None:
    assert platforms.install_space_gb(system) == gigabytes
    assert advice in platforms.venv_advice(system)


def test_chromium_on_the_path_comes_first(tmp_path: Path) -> None:
    program = tmp_path / ("chromium.exe" if sys.platform == "win32" else "chromium")
    program.write_text("")
    program.chmod(0o755)
    assert platforms.find_chromium(LINUX, {"PATH": str(tmp_path)}, tmp_path) == str(program)


@pytest.mark.parametrize(
    ("system", "place"),
    [
        (MACOS, "Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
        (WINDOWS, "Google/Chrome/Application/chrome.exe"),
        (WINDOWS, "Microsoft/Edge/Application/msedge.exe"),
    ],
)
def test_chromium_in_its_usual_place(tmp_path: Path, system: str, place: str) -> None:
    env = {"PATH": str(tmp_path / "nothing"), "LOCALAPPDATA": str(tmp_path)}
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("")
    assert platforms.find_chromium(system, env, tmp_path) == str(tmp_path / place)


def test_no_chromium(tmp_path: Path) -> None:
    assert platforms.find_chromium(WINDOWS, {"PATH": str(tmp_path)}, tmp_path) is None


def test_nvidia_is_seen_by_its_driver(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path)}
    assert not platforms.nvidia_present(tmp_path, env)
    (tmp_path / "driver" / "nvidia").mkdir(parents=True)
    assert platforms.nvidia_present(tmp_path, env)


@pytest.mark.parametrize("system", ALL)
@pytest.mark.parametrize(
    ("version", "cpu_build"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", True),
        ("__version__ = '2.13.0'\ncuda = None\n", True),
        ("__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n", False),
    ],
)
def test_cpu_build_of_torch_beside_a_gpu(tmp_path: Path, system: str, version: str, cpu_build: bool) -> None:
    torch = tmp_path / "venv" / ("Lib" if system == WINDOWS else "lib/python3.12") / "site-packages" / "torch"
    env = {"PATH": ""}
    (tmp_path / "driver" / "nvidia").mkdir(parents=True)
    assert not platforms.cpu_torch_beside_nvidia(tmp_path / "venv", system, env, tmp_path)
    torch.mkdir(parents=True)
    (torch / "version.py").write_text(version)
    assert platforms.cpu_torch_beside_nvidia(tmp_path / "venv", system, env, tmp_path) == cpu_build
    assert not platforms.cpu_torch_beside_nvidia(tmp_path / "venv", system, env, tmp_path / "no-gpu")


@pytest.mark.parametrize(
    ("system", "env", "expected"),
    [
        (LINUX, {}, False),
        (LINUX, {"DISPLAY": ":0"}, True),
        (LINUX, {"WAYLAND_DISPLAY": "wayland-0"}, True),
        (LINUX, {"DISPLAY": ":10", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, False),
        (MACOS, {}, True),
        (MACOS, {"CI": "true"}, False),
        (WINDOWS, {}, True),
    ],
)
def test_can_open_browser(system: str, env: dict[str, str], expected: bool) -> None:
    assert platforms.can_open_browser(system, env) == expected


def test_a_lock_is_exclusive_and_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a") as first, path.open("a") as second:
        assert platforms.lock_file(first)
        assert not platforms.lock_file(second)
        platforms.unlock_file(first)
        assert platforms.lock_file(second)
    take = "import sys; from engine import platforms; f = open(sys.argv[1], 'a'); print(platforms.lock_file(f), flush=True); input()"
    root = Path(platforms.__file__).parents[1]
    child = subprocess.Popen([sys.executable, "-c", take, str(path)], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child, path.open("a") as third:
        assert child.stdout.readline().strip() == "True"
        assert not platforms.lock_file(third)
        child.kill()
        child.wait()
        assert platforms.lock_file(third)


def test_a_locked_file_stays_where_it_was_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    fake = ModuleType("msvcrt")
    fake.LK_NBLCK, fake.LK_UNLCK = 2, 0
    fake.locking = lambda handle, mode, count: calls.append((mode, os.lseek(handle, 0, os.SEEK_CUR)))
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    path = tmp_path / "file"
    path.write_text("content")
    with path.open("r+") as handle:
        assert platforms.lock_file(handle, WINDOWS)
        assert handle.read() == "content"
        platforms.unlock_file(handle, WINDOWS)
    # Far beyond any content, because Windows keeps others from reading what is locked.
    assert calls == [(2, 1 << 30), (0, 1 << 30)]

    def taken(handle: int, mode: int, count: int) -> None:
        raise PermissionError(13, "Permission denied")

    fake.locking = taken
    with path.open("r+") as handle:
        assert not platforms.lock_file(handle, WINDOWS)


@posix_only
def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    new = platforms.private_file(tmp_path / "new")
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert new.read_bytes() == b""
    old = tmp_path / "old"
    old.write_text("kept")
    old.chmod(0o644)
    assert stat.S_IMODE(platforms.private_file(old).stat().st_mode) == 0o600
    assert old.read_text() == "kept"
    old.chmod(0o400)
    assert stat.S_IMODE(platforms.private_file(old).stat().st_mode) == 0o400


def test_a_private_file_keeps_its_mode_on_windows(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    before = file.stat().st_mode
    assert platforms.private_file(file, WINDOWS).stat().st_mode == before
    assert platforms.private_file(tmp_path / "new", WINDOWS).read_bytes() == b""


@pytest.mark.parametrize(("system", "synced"), [(LINUX, {"file", "folder"}), (MACOS, {"file", "folder"}), (WINDOWS, {"file"})])
def test_sync_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, synced: set[str]) -> None:
    if sys.platform == "win32" and system != WINDOWS:
        pytest.skip("Windows can't open folders")
    reached: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: reached.append(os.fstat(handle).st_ino))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for name in ("file", "folder"):
        platforms.sync_path(tmp_path / name, system)
    assert reached == [(tmp_path / name).stat().st_ino for name in ("file", "folder") if name in synced]


def test_sync_path_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        platforms.sync_path(tmp_path / "missing")


def test_a_detached_child_outlives_its_group() -> None:
    assert platforms.detached_process_options(LINUX)["start_new_session"] is True
    assert platforms.detached_process_options(MACOS)["start_new_session"] is True
    flags = platforms.detached_process_options(WINDOWS)["creationflags"]
    # CREATE_NEW_PROCESS_GROUP and CREATE_NO_WINDOW, as in the Windows SDK.
    assert flags == 0x200 | 0x08000000
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], **platforms.detached_process_options())
    try:
        if sys.platform != "win32":
            assert os.getpgid(child.pid) == child.pid
    finally:
        child.kill()
        child.wait()


def test_a_process_is_alive_until_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = platforms.process_started_at(child.pid)
    assert platforms.process_alive(child.pid)
    assert started is not None
    assert 0 <= started - platforms.process_started_at(os.getpid()) < 3600
    assert platforms.same_process(child.pid, started)
    assert not platforms.same_process(child.pid, started - 60)
    assert not platforms.same_process(child.pid, None)
    assert platforms.terminate(child.pid)
    # Ended, but not yet reaped: it doesn't count as alive any more.
    deadline = time.monotonic() + 10
    while platforms.process_alive(child.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not platforms.process_alive(child.pid)
    child.communicate()
    assert not platforms.same_process(child.pid, started)
    assert not platforms.kill(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reckons the time of its boot back from the clock")
def test_a_clock_that_is_set_makes_no_other_process(tmp_path: Path) -> None:
    real = Path("/proc/sys/kernel/random/boot_id")
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    marks = []
    for btime in (1_700_000_000, 1_700_018_000):
        (tmp_path / "stat").write_text(f"cpu 1 2 3\nbtime {btime}\n")
        marks.append(platforms._boot_mark(tmp_path))
        if real.exists():
            (tmp_path / "sys/kernel/random/boot_id").write_text("3496c3e2-05f4-4a1a-aba8-3a00e4ab4ebe\n")
            marks.append(platforms._boot_mark(tmp_path))
    assert marks[0] == 1_700_000_000, "where there is no mark of the boot, its time has to do"
    assert set(marks[1:]) == {0x3496C3E2}


@posix_only
def test_kill_ends_what_will_not_listen() -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", deaf], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    assert platforms.terminate(child.pid)
    time.sleep(0.1)
    assert child.poll() is None
    assert platforms.kill(child.pid)
    child.communicate(timeout=60)
    assert child.returncode == -9


@pytest.mark.parametrize("pid", [0, -1])
def test_groups_of_processes_are_never_meant(pid: int) -> None:
    assert not platforms.process_alive(pid)
    assert platforms.process_started_at(pid) is None
    with pytest.raises(ValueError, match="not a process id"):
        platforms.terminate(pid)
    with pytest.raises(ValueError, match="not a process id"):
        platforms.kill(pid)


def test_start_times_as_ps_tells_them() -> None:
    expected = time.mktime((2026, 1, 5, 9, 30, 0, 0, 0, -1))
    assert platforms.parse_lstart("Mon Jan  5 09:30:00 2026\n") == expected
    assert platforms.parse_lstart("") is None


class Kernel32:
    """The four calls of Windows that are needed, for one process with the number 7."""

    def __init__(self, code: int, created: int):
        self.code, self.created = code, created
        self.closed = 0
        self.OpenProcess = SimpleFunction(lambda access, inherit, pid: 0x1_0000_0001 if pid == 7 else 0)

    def GetExitCodeProcess(self, handle: ctypes.c_void_p, code: object) -> int:
        assert handle.value == 0x1_0000_0001
        code._obj.value = self.code
        return 1

    def GetProcessTimes(self, handle: ctypes.c_void_p, created: object, *others: object) -> int:
        created._obj.value = self.created
        return 1

    def CloseHandle(self, handle: ctypes.c_void_p) -> None:
        self.closed += 1


class SimpleFunction(SimpleNamespace):
    """A function that takes attributes, as ctypes' functions do."""

    def __init__(self, call: object):
        super().__init__(call=call)

    def __call__(self, *args: object) -> object:
        return self.call(*args)


def test_processes_on_windows() -> None:
    # 2026-01-05 09:30:00 UTC: 1767605400 s after 1970, counted from 1601 in steps of 100 ns.
    kernel = Kernel32(code=259, created=(1_767_605_400 + 11_644_473_600) * 10_000_000)
    assert platforms._windows_alive(7, kernel, lambda: 0)
    assert platforms._windows_started_at(7, kernel) == 1_767_605_400
    assert platforms._windows_started_at(8, kernel) is None
    assert not platforms._windows_alive(8, kernel, lambda: 87)
    assert platforms._windows_alive(8, kernel, lambda: 5), "access denied means that it is there"
    kernel.code = 1
    assert not platforms._windows_alive(7, kernel, lambda: 0)
    assert kernel.closed == 3


def test_a_taken_port_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not platforms.port_is_free(port)
    assert platforms.port_is_free(port)


@pytest.mark.parametrize(("system", "set_"), [(LINUX, True), (MACOS, True), (WINDOWS, False)])
def test_reuse_address(system: str, set_: bool) -> None:
    with socket.socket() as listener:
        platforms.reuse_address(listener, system)
        assert bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) == set_


@pytest.mark.parametrize("system", ALL)
def test_a_replaced_process_passes_on_its_exit_code(system: str) -> None:
    if sys.platform == "win32" and system != WINDOWS:
        pytest.skip("Windows can't replace a process")
    child = "import os; os._exit(int(os.environ['CODE']))"
    command = [sys.executable, "-c", child]
    code = f"from engine import platforms; platforms.replace_process({command!r}, {{'CODE': '7'}}, {system!r})"
    root = Path(platforms.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root, stdin=subprocess.DEVNULL).returncode == 7


def test_it_needs_nothing_installed() -> None:
    code = "import sys; before = set(sys.modules); from engine import platforms; print(*sorted(set(sys.modules) - before))"
    root = Path(platforms.__file__).parents[1]
    loaded = subprocess.run([sys.executable, "-S", "-c", code], check=True, cwd=root, capture_output=True, text=True).stdout.split()
    own = {"engine", "engine.platforms"}
    assert own <= set(loaded)
    assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names == {"engine"}
