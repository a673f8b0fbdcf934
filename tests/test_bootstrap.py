"""`thinker.py` on machines where nothing is installed, with a package of our own instead of the real ones: no network."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from engine import platforms

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
CLI = "import sys, tiny\nprint('tiny', tiny.VERSION, *sys.argv[1:])\nsys.exit(7 if 'fail' in sys.argv else 0)\n"
ECHO = "import os, sys\nprint(os.path.basename(os.getcwd()), *sys.argv[1:])\n"
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and programs")


class Launcher:
    """A copy of the launcher in a folder of its own, which installs the package `tiny`."""

    def __init__(self, folder: Path, venv: Path | None = None):
        self.root = folder / "thinker"
        (self.root / "engine").mkdir(parents=True)
        shutil.copy(ROOT / "thinker.py", self.root)
        for name in ("__init__.py", "platforms.py"):
            shutil.copy(ROOT / "engine" / name, self.root / "engine")
        (self.root / "engine" / "cli.py").write_text(CLI)
        for name in ("tests", "streamlit"):
            (self.root / f"{name}.py").write_text(ECHO)
        self.requirements = self.root / "requirements.txt"
        self.requirements.write_text("-c requirements.lock\ntiny==1.0\n")
        (self.root / "requirements.lock").write_text("tiny==1.0\n")
        self.venv = self.root / ".venv"
        if venv:
            shutil.copytree(venv, self.venv, symlinks=True)
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        for version in ("1.0", "2.0"):
            make_wheel(self.wheels, version)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_") and name != "CI"}
        self.env.update(PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(self.wheels))

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*args, **env)
        out, err = process.communicate(timeout=90)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(self.root / "thinker.py"), *args]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env={**self.env, **env}, cwd=self.root.parent, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    @property
    def stamp(self) -> Path:
        return self.venv / "thinker-installed.json"


def make_wheel(folder: Path, version: str) -> None:
    """The smallest package that pip installs."""
    info = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but pip, made once: each costs seconds."""
    venv = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, stdin=subprocess.DEVNULL)
    return venv


@pytest.fixture
def launcher(tmp_path: Path, empty_venv: Path) -> Launcher:
    return Launcher(tmp_path, empty_venv)


@pytest.fixture
def thinker() -> ModuleType:
    """The launcher as a module, for what can't be brought about from outside."""
    spec = importlib.util.spec_from_file_location("thinker_launcher", ROOT / "thinker.py")
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_from_nothing_to_a_command_and_then_at_once(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path)
    first = launcher.run("train", "--demo", "piglatin")
    assert (first.returncode, first.stdout) == (0, "tiny 1.0 train --demo piglatin\n"), first.stderr
    lines = first.stderr.splitlines()
    assert lines[0].startswith(f"Installing into {launcher.venv}")
    assert any(line.endswith("Installing 1 packages") for line in lines)
    assert lines[-1].endswith("Installed")
    second = launcher.run("jobs")
    assert (second.stdout, second.stderr) == ("tiny 1.0 jobs\n", "")


def test_only_a_change_is_installed(launcher: Launcher) -> None:
    assert "Installed" in launcher.run("jobs").stderr
    launcher.requirements.write_text("tiny==2.0\n")
    changed = launcher.run("jobs")
    assert changed.stdout == "tiny 2.0 jobs\n", changed.stderr
    # The files that requirements.txt names count too; line ends, which git may turn, don't.
    launcher.requirements.write_text("-c requirements.lock\ntiny\n")
    assert launcher.run("jobs").stdout == "tiny 1.0 jobs\n"
    launcher.requirements.write_bytes(b"-c requirements.lock\r\ntiny\r\n")
    assert launcher.run("jobs").stderr == ""
    (launcher.root / "requirements.lock").write_text("tiny==2.0\n")
    assert launcher.run("jobs").stdout == "tiny 2.0 jobs\n"


def test_another_python_in_the_environment_is_installed_for_again(launcher: Launcher) -> None:
    launcher.run("jobs")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    launcher.stamp.write_text(launcher.stamp.read_text().replace(f'"{version}"', '"3.10"'))
    assert "Installed" in launcher.run("jobs").stderr
    assert f'"{version}"' in launcher.stamp.read_text()


def test_a_broken_environment_is_made_anew(launcher: Launcher) -> None:
    launcher.run("jobs")
    python = platforms.venv_python(launcher.venv)
    python.unlink()
    python.write_text("no program")
    mended = launcher.run("jobs")
    assert mended.stdout == "tiny 1.0 jobs\n", mended.stderr


@posix_only
def test_an_interrupted_installation_is_done_again(launcher: Launcher) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        process = launcher.start("jobs", PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_INDEX_URL=index)
        # pip is at work once it asks the index, which will never answer.
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=90)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert not launcher.stamp.exists()
    again = launcher.run("jobs")
    assert (again.returncode, again.stdout) == (0, "tiny 1.0 jobs\n"), again.stderr


def test_what_was_cut_off_after_a_change_is_not_taken_for_the_old_state(launcher: Launcher) -> None:
    launcher.run("jobs")
    before = launcher.requirements.read_text()
    launcher.requirements.write_text("tiny==2.0\nmissing==1.0\n")
    assert launcher.run("jobs").returncode == 1
    launcher.requirements.write_text(before)
    assert "Installed" in launcher.run("jobs").stderr


def test_two_launchers_at_once(launcher: Launcher) -> None:
    both = [launcher.start("jobs", str(number)) for number in range(2)]
    results = [process.communicate(timeout=90) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert [out for out, _ in results] == ["tiny 1.0 jobs 0\n", "tiny 1.0 jobs 1\n"]
    assert sum("Installing into" in err for _, err in results) == 1


def test_a_launcher_waits_while_another_installs(launcher: Launcher) -> None:
    with (launcher.venv / "thinker-install.lock").open("a") as handle:
        assert platforms.lock_file(handle)
        process = launcher.start("jobs")
        assert process.stderr.readline() == "Another launcher is installing; waiting for it\n"
        time.sleep(0.5)
        assert process.poll() is None
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out) == (0, "tiny 1.0 jobs\n"), err


def test_exit_codes_and_arguments_pass_through(launcher: Launcher) -> None:
    failed = launcher.run("fail", "a b", "--json")
    assert (failed.returncode, failed.stdout) == (7, "tiny 1.0 fail a b --json\n")


def test_the_users_own_files_are_not_in_the_way(launcher: Launcher) -> None:
    (launcher.root.parent / "engine").mkdir()
    (launcher.root.parent / "engine" / "cli.py").write_text("print('not ours')\n")
    (launcher.root.parent / "tiny.py").write_text("VERSION = 'not ours'\n")
    assert launcher.run("jobs").stdout == "tiny 1.0 jobs\n"


def test_tests_run_from_the_root(launcher: Launcher) -> None:
    assert launcher.run("test", "-k", "x").stdout == "thinker -k x\n"


def test_the_dashboard_listens_on_loopback_at_a_free_port(launcher: Launcher) -> None:
    with socket.socket() as other:
        platforms.reuse_address(other)
        try:
            other.bind(("127.0.0.1", 8501))
            other.listen()
        except OSError:
            pass  # somebody else has it, which is as good
        result = launcher.run("--theme.base", "dark", DISPLAY="", WAYLAND_DISPLAY="", SSH_CONNECTION="x")
    words = result.stdout.split()
    assert words[:3] == ["thinker", "run", str(launcher.root / "app" / "serve.py")]
    assert words[-2:] == ["--theme.base", "dark"]
    flags = dict(zip(words[3::2], words[4::2], strict=True))
    assert flags["--server.address"] == "127.0.0.1"
    assert flags["--server.headless"] == "true"
    assert 8501 < int(flags["--server.port"]) <= 8600
    assert f"http://127.0.0.1:{flags['--server.port']} " in result.stderr


def test_the_dashboards_port_can_be_chosen(launcher: Launcher) -> None:
    words = launcher.run("--server.port=9123").stdout.split()
    assert [word for word in words if word.startswith("--server.port")] == ["--server.port=9123"]


@posix_only
def test_a_gpu_that_pytorch_cannot_use_gets_one_line(launcher: Launcher, tmp_path: Path) -> None:
    launcher.run("jobs")
    torch = platforms.site_packages(launcher.venv) / "torch"
    torch.mkdir()
    (torch / "version.py").write_text("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    hinted = launcher.run("jobs", **path)
    assert hinted.stdout == "tiny 1.0 jobs\n"
    assert hinted.stderr.count("\n") == 1
    assert "NVIDIA" in hinted.stderr
    (torch / "version.py").write_text("__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n")
    assert launcher.run("jobs", **path).stderr == ""


def test_help_needs_no_installation(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path)
    shown = launcher.run("--help")
    assert shown.returncode == 0
    assert "python thinker.py test" in shown.stdout
    assert launcher.run("--version").stdout.startswith("thinker ")
    assert not launcher.venv.exists()


def test_no_network(launcher: Launcher) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        result = launcher.run("jobs", PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_INDEX_URL=index, PIP_RETRIES="1", PIP_TIMEOUT="1")
    assert (result.returncode, result.stdout) == (1, "")
    assert "pip can't reach its package index. Check the network" in result.stderr
    assert "Traceback" not in result.stderr
    assert not launcher.stamp.exists()


def test_a_folder_that_cannot_be_written_to(launcher: Launcher, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = launcher.run("jobs", THINKER_VENV=str(tmp_path / "file" / "venv"))
    assert result.returncode == 1
    assert f"{tmp_path / 'file' / 'venv'} can't be written to" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_with_other_things_is_left_alone(launcher: Launcher, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    result = launcher.run("jobs", THINKER_VENV=str(other))
    assert result.returncode == 1
    assert "holds other things" in result.stderr
    assert [child.name for child in other.iterdir()] == ["thesis.txt"]


def test_the_environment_can_lie_elsewhere(launcher: Launcher, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(launcher.venv, elsewhere)
    assert launcher.run("jobs", THINKER_VENV=str(elsewhere)).stdout == "tiny 1.0 jobs\n"
    assert not launcher.venv.exists()


def test_no_disk_space(thinker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1.5e9))
    monkeypatch.setattr(platforms, "install_space_gb", lambda: 6)
    (tmp_path / "requirements.txt").write_text("tiny==1.0\n")
    with pytest.raises(thinker.Trouble, match=r"needs 6 GB of free disk space, and .* has 1\.5 GB\. Make room"):
        thinker.install(tmp_path / "deep" / "venv", tmp_path / "requirements.txt")
    assert not (tmp_path / "deep").exists()


def test_a_python_without_venv(thinker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(thinker.Trouble, match="can't make virtual environments"):
        thinker.make_venv(tmp_path / "venv")


@pytest.mark.parametrize(
    ("output", "meaning"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "The disk is full. Make room"),
        ("OSError: [Errno 122] Disk quota exceeded", "The disk is full"),
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(<x>: Failed to establish a new connection: "
            "[Errno -2] Name or service not known')': /simple/x/\nERROR: No matching distribution found for x",
            "can't reach its package index",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'", "can't be written to"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build for this machine"),
        ("something new", "The reason is in the last lines"),
    ],
)
def test_what_pip_says_is_explained(thinker: ModuleType, output: str, meaning: str) -> None:
    told = thinker.explain(output, Path("/venv"))
    assert meaning in told
    assert output.splitlines()[-1] in told
    assert "{" not in told.partition("\n")[0]


@pytest.mark.parametrize(
    ("line", "short"),
    [
        ("Collecting torch==2.13.0 (from -r requirements.txt (line 31))\n", "Collecting torch==2.13.0"),
        ("  Downloading https://host/p/torch-2.13.0-cp312-linux.whl (800 MB)\n", "Downloading torch-2.13.0-cp312-linux.whl (800 MB)"),
        ("  Downloading torch-2.13.0-cp312-linux.whl.metadata (29 kB)\n", ""),
        ("Installing collected packages: a, b, c\n", "Installing 3 packages"),
        ("Requirement already satisfied: a in /x\n", ""),
    ],
)
def test_progress_is_short(thinker: ModuleType, line: str, short: str) -> None:
    assert thinker.shorten(line) == short


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 6, 15), (3, 10, 13)])
def test_an_old_python_is_told_so(thinker: ModuleType, version: tuple[int, int, int]) -> None:
    assert f"this is Python {version[0]}.{version[1]}" in thinker.old_python(version)
    pretend = f"import runpy, sys; sys.version_info = {version}; runpy.run_path({str(ROOT / 'thinker.py')!r}, run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", pretend], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 1
    assert result.stderr.startswith("Thinker needs Python 3.11 or newer")
    assert result.stderr.count("\n") == 1


def test_a_new_python_is_fine(thinker: ModuleType) -> None:
    assert thinker.old_python((3, 11, 0)) == ""
    assert thinker.old_python((4, 0, 0)) == ""


def test_old_pythons_can_read_the_launcher() -> None:
    source = (ROOT / "thinker.py").read_bytes()
    assert source.isascii()
    newer = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.AsyncFunctionDef, ast.Match, ast.Nonlocal)
    for node in ast.walk(ast.parse(source, feature_version=(3, 7))):
        assert not isinstance(node, newer), ast.unparse(node)
        if isinstance(node, (ast.List, ast.Tuple)):
            assert not any(isinstance(item, ast.Starred) for item in node.elts), ast.unparse(node)
        if isinstance(node, ast.Raise):
            assert node.cause is None, ast.unparse(node)
        if isinstance(node, ast.arguments):
            assert not node.kwonlyargs
            assert not any(argument.annotation for argument in node.args)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            assert not node.keywords, ast.unparse(node)
            assert len(node.args) == 1, ast.unparse(node)
