#!/usr/bin/env python3
"""Thinker's one door: makes its own virtual environment, installs into it what is needed, runs what was asked for.

    python thinker.py             the dashboard, in the browser
    python thinker.py test        every test
    python thinker.py COMMAND     the command line: train, jobs, chat, doctor, ... (python thinker.py COMMAND --help)

The first run installs (several minutes, several GB); later runs install again only when requirements.txt changed.
THINKER_VENV=FOLDER keeps the environment elsewhere than in .venv. Refuses to know what the commands do.

Standard library only, in words that even old Pythons can read, so that those can be told what is wrong.
"""

import sys


def old_python(version):
    """What to tell a Python that is too old; nothing otherwise."""
    if tuple(version[:2]) >= (3, 11):
        return ""
    return (
        "Thinker needs Python 3.11 or newer, and this is Python {}.{} ({}). Install a newer one from python.org or with your system's "
        "package manager and start again with it, for example: python3.12 thinker.py".format(version[0], version[1], sys.executable)
    )


if old_python(sys.version_info):
    sys.exit(old_python(sys.version_info))

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

import engine
from engine import platforms

STAMP = "thinker-installed.json"
LOCK = "thinker-install.lock"
SILENCE = 15  # seconds without news after which the wait itself is news

# What pip and the system say, and what that means. The first that fits is told, so that causes come before consequences.
PIP_TROUBLE = (
    (
        r"No space left on device|\[Errno 28\]|not enough space on the disk|Disk quota exceeded",
        "The disk is full. Make room (at least {gb} GB; pip also needs room in the temporary folder, see TMPDIR), or set "
        "THINKER_VENV to a folder on a larger disk, and start again.",
    ),
    (
        r"NewConnectionError|establish a new connection|ConnectTimeoutError|ReadTimeoutError|Max retries exceeded|Connection broken"
        r"|Connection aborted|ConnectionResetError|IncompleteRead|name resolution|Name or service not known|getaddrinfo failed"
        r"|Network is unreachable|ProxyError|SSLError|CERTIFICATE_VERIFY_FAILED",
        "pip can't reach its package index. Check the network (behind a proxy, set HTTPS_PROXY; with a mirror, PIP_INDEX_URL) and "
        "start again: what was already downloaded is kept.",
    ),
    (
        r"\[Errno (1|13|17|20|30)\]|Permission denied|Access is denied|Read-only file system",
        "{venv} can't be written to. Make the folder writable for you, or set THINKER_VENV to one that is, and start again.",
    ),
    (
        r"No matching distribution found|requires a different Python",
        "A package has no build for this machine with Python {python}. Start again with Python 3.11 to 3.14, 64 bit: the newest "
        "Python is often ahead of the packages.",
    ),
)


class Trouble(Exception):
    """What happened and what to do, in one paragraph for a person."""


def main(args):
    """Install what is missing, then become what was asked for."""
    if args and args[0] in ("-h", "--help", "help"):
        print(__doc__.partition("\n\nStandard library only")[0])
        return
    if args and args[0] == "--version":
        print("thinker " + engine.__version__)
        return
    default = ROOT / ".venv"
    venv = Path(os.environ.get("THINKER_VENV") or default).expanduser().absolute()
    install(venv, ROOT / "requirements.txt", ours=venv == default)
    python = str(platforms.venv_python(venv))
    # The child may start further processes of ours from any folder.
    path = os.pathsep.join([str(ROOT)] + [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part])
    env = dict(os.environ, PYTHONPATH=path)
    if args and args[0] == "test":
        os.chdir(str(ROOT))
        platforms.replace_process([python, "-m", "tests"] + args[1:], env)
    if platforms.cpu_torch_beside_nvidia(venv):
        say("Hint: here is an NVIDIA GPU, but PyTorch is a CPU build: install the CUDA build (PyTorch's Get Started page) with " + python)
    if args and not args[0].startswith("-"):
        # -P: a folder or file of the user's, named as one of our modules, would be imported instead.
        platforms.replace_process([python, "-P", "-m", "engine.cli"] + args, env)
    # Streamlit reads .streamlit/config.toml in the folder that it is started from.
    os.chdir(str(ROOT))
    platforms.replace_process([python, "-m", "streamlit", "run", str(ROOT / "app" / "serve.py")] + dashboard_flags(args), env)


def dashboard_flags(args):
    """Streamlit's flags: loopback only, a port that is free, a browser where there is a screen; those given come last and win."""
    given = {arg.partition("=")[0] for arg in args}
    flags = ["--server.address", "127.0.0.1", "--server.showEmailPrompt", "false", "--browser.gatherUsageStats", "false"]
    if "--server.port" not in given:
        port = next((port for port in range(8501, 8601) if platforms.port_is_free(port)), None)
        if port is None:
            raise Trouble("The ports 8501 to 8600 are all taken. Name a free one: python thinker.py --server.port 9000")
        flags += ["--server.port", str(port)]
        say("Thinker: http://127.0.0.1:{}  (Ctrl-C stops it)".format(port))
    if "--server.headless" not in given:
        flags += ["--server.headless", "false" if platforms.can_open_browser() else "true"]
    return flags + args


def install(venv, requirements, ours=True):
    """Bring the environment up to date; quick when it is. Safe to interrupt and to run twice at once."""
    wanted = fingerprint(requirements)
    if installed(venv) == wanted:
        return
    if not ours and venv.is_dir() and not (venv / "pyvenv.cfg").exists() and any(child.name != LOCK for child in venv.iterdir()):
        raise Trouble("THINKER_VENV names {}, which holds other things. Name a new or empty folder and start again.".format(venv))
    check_space(venv)
    try:
        venv.mkdir(parents=True, exist_ok=True)
        with open(str(venv / LOCK), "a") as handle:
            waited = False
            while not platforms.lock_file(handle):
                if not waited:
                    say("Another launcher is installing; waiting for it")
                waited = True
                time.sleep(0.3)
            if installed(venv) == wanted:
                return
            started = time.monotonic()
            say("Installing into {} (the first time takes several minutes)".format(venv))
            make_venv(venv)
            if (venv / STAMP).exists():
                write_stamp(venv, "")
            run_pip(venv, requirements, started)
            write_stamp(venv, wanted)
            say("{}  Installed".format(clock(started)))
    except OSError as error:
        raise Trouble("Installing failed. " + explain(str(error), venv))


def fingerprint(requirements):
    """A hash of the requirements and of the files that they name."""
    text = requirements.read_bytes()
    for name in re.findall(rb"^(?:-c|-r)\s+(\S+)", text, re.MULTILINE):
        text += (requirements.parent / name.decode()).read_bytes()
    return hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()


def installed(venv):
    """The fingerprint that was last installed whole, by the Python that the environment still has; else nothing."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
        return stamp["requirements"] if stamp["python"] == venv_version(venv) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def write_stamp(venv, wanted):
    """Say that the installation is whole: last of all and in one piece, so that an interrupted one is done again."""
    part = venv / (STAMP + ".part")
    part.write_text(json.dumps({"requirements": wanted, "python": venv_version(venv)}), encoding="utf-8")
    os.replace(str(part), str(venv / STAMP))


def venv_version(venv):
    """The environment's Python as "3.12"; nothing when it doesn't run."""
    command = [str(platforms.venv_python(venv)), "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, universal_newlines=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def check_space(venv):
    """Refuse to begin what can't be finished; an environment that already works only needs the difference."""
    place = next(folder for folder in [venv] + list(venv.parents) if folder.exists())
    needed = platforms.install_space_gb()
    free = shutil.disk_usage(str(place)).free / 1e9
    if free < needed and not (venv / STAMP).exists():
        raise Trouble(
            "Installing needs {} GB of free disk space, and {} has {:.1f} GB. Make room, or set THINKER_VENV to a folder on a larger "
            "disk, and start again.".format(needed, place, free)
        )


def make_venv(venv):
    """An environment with a working Python and pip; one that has them is left as it is."""
    version = venv_version(venv)
    python = str(platforms.venv_python(venv))
    fit = version and not old_python([int(part) for part in version.split(".")])
    if fit and subprocess.call([python, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
        return
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise Trouble("This Python ({}) can't make virtual environments. {}".format(sys.executable, platforms.venv_advice()))
    if version != "%d.%d" % sys.version_info[:2]:
        # Cleared by hand: `venv --clear` would take the lock away under another launcher.
        for child in venv.iterdir():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(str(child), ignore_errors=True)
            elif child.name != LOCK:
                child.unlink()
    made = subprocess.run([sys.executable, "-m", "venv", str(venv)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
    if made.returncode:
        raise Trouble("Making the virtual environment failed. " + explain(made.stdout, venv))


def run_pip(venv, requirements, started):
    """Install, telling what happens line by line."""
    # Settings made for other environments would send the packages elsewhere or take the neighbours' for ours.
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX")}
    env.update(PIP_USER="0", PYTHONUNBUFFERED="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
    command = [str(platforms.venv_python(venv)), "-m", "pip", "install", "--no-input", "--progress-bar", "off", "-r", str(requirements)]
    pip = subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=1, errors="replace"
    )
    news = {"line": "Starting pip", "at": time.monotonic()}
    done = threading.Event()

    def reassure():
        while not done.wait(1):
            if time.monotonic() - news["at"] >= SILENCE:
                news["at"] = time.monotonic()
                say("{}  ... still at it: {}".format(clock(started), news["line"]))

    threading.Thread(target=reassure, daemon=True).start()
    output = []
    try:
        for line in pip.stdout:
            output.append(line)
            short = shorten(line)
            if short:
                news.update(line=short, at=time.monotonic())
                say("{}  {}".format(clock(started), short))
        code = pip.wait()
    except BaseException:
        # Interrupted: pip must be gone before the lock is.
        pip.terminate()
        pip.wait()
        raise
    finally:
        done.set()
    if code:
        raise Trouble("Installing the requirements failed. " + explain("".join(output), venv))


def shorten(line):
    """One of pip's lines, short; nothing for those that aren't progress."""
    words = line.split()
    if len(words) > 1 and words[0] == "Collecting":
        return "Collecting " + words[1]
    if len(words) > 1 and words[0] == "Downloading" and ".metadata" not in words[1]:
        return " ".join(["Downloading", words[1].rpartition("/")[2]] + words[2:])
    if line.startswith("Installing collected packages"):
        return "Installing {} packages".format(line.count(",") + 1)
    return ""


def explain(output, venv):
    """What pip's words mean and what to do, with the last of them."""
    unknown = "The reason is in the last lines; put it right and start again."
    meaning = next((meaning for pattern, meaning in PIP_TROUBLE if re.search(pattern, output)), unknown)
    text = meaning.format(gb=platforms.install_space_gb(), venv=venv, python="%d.%d" % sys.version_info[:2])
    return "{}\nThe last lines:\n{}".format(text, "\n".join("    " + line.rstrip() for line in output.splitlines()[-8:]))


def clock(started):
    """Minutes and seconds since then."""
    return "%3d:%02d" % divmod(int(time.monotonic() - started), 60)


def say(text):
    """Tell the person at the terminal; standard output belongs to the commands."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Trouble as trouble:
        sys.exit(str(trouble))
    except KeyboardInterrupt:
        sys.exit(130)
