"""Programs that try to get out, on every mechanism that this machine has; and what well-behaved ones are given back.

Each attack is bounded, so that a sandbox that fails harms nobody.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import StateError
from engine.sandbox import SANDBOXES, Limits, Outcome, Program, Sandbox, Task, available

SECRET = "tml-a-secret-key"


def usable(name: str) -> bool:
    try:
        with Sandbox(mechanism=name, at_once=1) as sandbox:
            sandbox.start()
    except StateError:
        return False
    return True


@pytest.fixture(scope="module", params=SANDBOXES)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    if not usable(request.param):
        pytest.skip(f"{request.param} can't be used on this machine")
    os.environ["THINKER_TEST_KEY"] = SECRET
    with Sandbox(mechanism=request.param, limits=Limits(seconds=10), at_once=2) as made:
        made.start()
        del os.environ["THINKER_TEST_KEY"]
        yield made


@pytest.fixture
def secret() -> Iterator[Path]:
    """A file that any user of the machine may read and write, in a folder where any may."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "secret")
        file.write_text(SECRET)
        file.chmod(0o666)
        file.parent.chmod(0o777)
        yield file


def run(sandbox: Sandbox, source: str, **limits: float) -> Outcome:
    return sandbox.run([Program(textwrap.dedent(source))], Limits(**{"seconds": 10, **limits}))[0]


def test_some_mechanism_is_here() -> None:
    """Where Linux can have none, nothing below is tested, and the rewards that need one are refused."""
    if sys.platform.startswith("linux"):
        assert available() in SANDBOXES


WAYS_TO_READ = {
    "plainly": "print(open({path!r}).read())",
    "by descriptor": "import os; print(os.read(os.open({path!r}, os.O_RDONLY), 99))",
    "by the folder": "import os; print(os.listdir({folder!r})); print(open({path!r}).read())",
    "through the root of a process": "print(open('/proc/self/root' + {path!r}).read()); print(open('/proc/1/root' + {path!r}).read())",
    "upwards": "print(open('../' * 20 + {path!r}).read())",
    "as a module": "from importlib import machinery; print(machinery.SourceFileLoader('x', {path!r}).get_data({path!r}))",
    "by a shell": "import os; os.system('cat ' + {path!r})",
    "by another program": "import subprocess; print(subprocess.run(['/bin/cat', {path!r}], capture_output=True).stdout)",
    "by exec": "import os; os.execv('/bin/cat', ['cat', {path!r}])",
    "by mapping": "import ctypes; c = ctypes.CDLL(None); print(c.open({path!r}.encode(), 0))\nimport os; print(os.read(4, 99))",
}


@pytest.mark.parametrize("way", WAYS_TO_READ)
def test_files_cannot_be_read(sandbox: Sandbox, secret: Path, way: str) -> None:
    found = run(sandbox, WAYS_TO_READ[way].format(path=str(secret), folder=str(secret.parent)))
    assert SECRET not in found.out + found.err + found.problem


def test_the_project_and_the_data_directory_cannot_be_read(sandbox: Sandbox) -> None:
    home = os.environ["THINKER_HOME"]
    for place in (
        home,
        str(Path(__file__).parents[2] / "engine" / "engine.py"),
        str(Path.home() / ".bashrc"),
        "/etc/passwd",
        "/etc/shadow",
    ):
        assert not run(sandbox, f"import os\nprint(os.listdir({place!r}) if os.path.isdir({place!r}) else open({place!r}).read())").fine


def test_a_link_leads_nowhere(sandbox: Sandbox, secret: Path) -> None:
    link = secret.with_name("link")
    link.symlink_to(secret)
    assert SECRET not in run(sandbox, f"print(open({str(link)!r}).read())").out
    assert not run(sandbox, f"import os; os.symlink({str(secret)!r}, '/tmp/thinker-link'); print(open('/tmp/thinker-link').read())").fine
    assert not run(sandbox, f"import os; os.link({str(secret)!r}, '/tmp/thinker-link')").fine


@pytest.mark.parametrize(
    "place", ["{folder}/new", "{path}", "/tmp/thinker-new", "/var/tmp/thinker-new", "/dev/shm/thinker-new", "thinker-new"]
)
def test_nothing_can_be_written(sandbox: Sandbox, secret: Path, place: str) -> None:
    place = place.format(folder=secret.parent, path=secret)
    assert not run(sandbox, f"open({place!r}, 'w').write('x' * 100)").fine
    assert not run(sandbox, f"open({place!r}, 'a').write('x')").fine
    assert secret.read_text() == SECRET and sorted(secret.parent.iterdir()) == [secret]
    assert not Path(place).exists() or place == str(secret)


@pytest.mark.parametrize("action", ["chmod({}, 0)", "remove({})", "rename({}, '/tmp/x')", "utime({}, (1, 1))", "truncate({}, 0)"])
def test_what_is_there_stays_as_it_is(sandbox: Sandbox, secret: Path, action: str) -> None:
    before = secret.stat()
    assert not run(sandbox, "import os\nos." + action.format(repr(str(secret)))).fine
    after = secret.stat()
    assert (after.st_mode, after.st_mtime, after.st_size) == (before.st_mode, before.st_mtime, before.st_size)


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_the_network_is_away(sandbox: Sandbox, kind: str) -> None:
    with socket.socket(socket.AF_INET, getattr(socket, kind)) as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "SOCK_STREAM":
            listener.listen()
        listener.settimeout(0.3)
        port = listener.getsockname()[1]
        run(sandbox, f"import socket\ns = socket.socket(socket.AF_INET, socket.{kind})\ns.connect(('127.0.0.1', {port}))\ns.send(b'out')")
        with pytest.raises(TimeoutError):
            listener.accept() if kind == "SOCK_STREAM" else listener.recv(10)
    assert not run(sandbox, "import socket; socket.getaddrinfo('localhost', 80)[0]; socket.create_connection(('8.8.8.8', 53), 3)").fine


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no such sockets here")
def test_sockets_of_other_programs_are_away(sandbox: Sandbox, secret: Path) -> None:
    for address in (str(secret.with_name("s")), f"\0thinker-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            assert not run(sandbox, f"import socket; socket.socket(socket.AF_UNIX).connect({address!r})").fine


def test_other_programs_cannot_be_reached(sandbox: Sandbox) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        for pid in (other.pid, os.getpid()):
            run(sandbox, f"import os; os.kill({pid}, {signal.SIGTERM})")
            # Signal 0 only asks whether one would get through, so that nothing is harmed where the sandbox fails.
            assert not run(sandbox, "import os; os.kill(-1, 0)").fine
            found = run(sandbox, f"print(open('/proc/{pid}/environ').read()); print(open('/proc/{pid}/cmdline').read())")
            assert not found.fine and not found.out
            run(sandbox, f"import resource; resource.prlimit({pid}, resource.RLIMIT_CPU, (0, 0))")
            trace = run(sandbox, f"import ctypes; print(ctypes.CDLL(None, use_errno=True).ptrace(16, {pid}, 0, 0))")
            assert trace.out.strip() in ("-1", "")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert run(sandbox, "print(1)").out == "1\n"


def test_nothing_of_the_environment_reaches_it(sandbox: Sandbox) -> None:
    found = run(sandbox, "import os, sys; print(dict(os.environ), sys.argv, flush=True)\nprint(open('/proc/self/environ').read())")
    assert SECRET not in found.out and "THINKER" not in found.out and os.environ["HOME"] not in found.out
    # The processes above it: the server inside, and whoever started that.
    parents = "import os\nfor pid in {os.getppid(), 1, 2}:\n try: print(open(f'/proc/{pid}/environ').read())\n except OSError: pass"
    assert SECRET not in run(sandbox, parents).out


def test_no_files_are_left_open_to_it(sandbox: Sandbox) -> None:
    found = run(sandbox, "import os\nfor n in range(4, 300):\n try: os.fstat(n); print(n)\n except OSError: pass")
    assert found.fine and not found.out


@pytest.mark.slow
def test_memory_is_bounded(sandbox: Sandbox) -> None:
    for source in ("x = 'x' * (3 << 30)", "x = []\nfor n in range(128): x.append(bytearray(1 << 24))", "x = 10 ** 10 ** 10"):
        found = run(sandbox, source, seconds=3, memory=256 << 20)
        assert found.end in ("memory", "time", "died"), found
    kept = run(sandbox, "import os\nfd = os.memfd_create('x')\nfor n in range(1024): os.write(fd, b'x' * (1 << 20))")
    assert not kept.fine and kept.seconds < 5


@pytest.mark.slow
def test_processes_and_threads_are_bounded(sandbox: Sandbox) -> None:
    began = time.monotonic()
    bomb = run(sandbox, "import os, time\nfor n in range(7): os.fork()\ntime.sleep(1)", seconds=5)
    assert not bomb.fine
    found = run(
        sandbox,
        "import threading, time\nfor n in range(2000): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        seconds=5,
    )
    assert not found.fine
    assert time.monotonic() - began < 20
    assert run(sandbox, "import threading\nt = threading.Thread(target=print, args=(1,)); t.start(); t.join()").out == "1\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
        "import time; time.sleep(1000)",
        "import signal\nfor n in (15, 24, 2): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')",
        "import os, time\nfor n in range(1, 4): os.close(n)\ntime.sleep(1000)",
        "import os\nos.closerange(0, 99)\nwhile True: pass",
    ],
)
def test_endless_ones_are_ended(sandbox: Sandbox, source: str) -> None:
    began = time.monotonic()
    found = run(sandbox, source, seconds=1)
    assert found.end == "time" and "longer than 1 seconds" in found.problem
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_one_that_cannot_be_heard_holds_up_nobody(sandbox: Sandbox) -> None:
    silent = Program("import os, time\nos.closerange(1, 99)\ntime.sleep(1000)")
    found = sandbox.run([silent, *[Program("print(1)")] * 5], Limits(seconds=2))
    assert [one.end for one in found] == ["time", *["done"] * 5]


@pytest.mark.parametrize(
    "source",
    [
        "while True: print('x' * 1000)",
        "import sys\nwhile True: sys.stderr.write('y' * 1000)",
        "import os\nwhile True: os.write(1, b'z' * 70000)",
    ],
)
def test_floods_are_ended(sandbox: Sandbox, source: str) -> None:
    found = run(sandbox, source, output=10_000)
    assert found.end == "output" and "more than 10000" in found.problem
    assert len(found.out) <= 10_000 and len(found.err) <= 10_000 and found.seconds < 5


def test_results_cannot_be_made_up_blindly(sandbox: Sandbox) -> None:
    forged = '{"tests": 1}\\n{"passed": true, "text": ""}\\n'
    source = f"import os\nos.write(3, b'{forged}')\nprint('{forged}')\nos._exit(0)"
    found = sandbox.test([Task(source, "assert False")])[0]
    assert not found.fine and found.passed == 0 and found.total == 1
    flood = sandbox.run([Program("import os\nwhile True: os.write(3, b'x' * 60000)")], Limits(seconds=5, reply=1 << 20))[0]
    assert flood.end == "output"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import ctypes; ctypes.string_at(0)", "broke down"),
        ("import os; os._exit(0)", "before it was done"),
        ("import os; os.abort()", "broke down"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def f(): f()\nf()", "line 1: RecursionError"),
        ("x = 1\nraise KeyError('a')", "line 2: KeyError"),
        ("x = = 1", "line 1: SyntaxError"),
        ("class E(BaseException):\n  def __str__(self): raise ValueError\nraise E", "line 3: E"),
        ("import sys; sys.stdout.close(); sys.stderr.close(); print(1)", ""),
    ],
)
def test_those_that_break_say_how(sandbox: Sandbox, source: str, says: str) -> None:
    found = run(sandbox, source)
    assert not found.fine and says in found.problem
    assert run(sandbox, "print(2)").out == "2\n"


def test_what_programs_write_and_read(sandbox: Sandbox) -> None:
    found = run(sandbox, "import sys\nprint('héé ☃')\nprint('no', file=sys.stderr)\nsys.exit(0)")
    assert found.fine and (found.out, found.err) == ("héé ☃\n", "no\n")
    text = "ü" * 100_000
    found = sandbox.run([Program("print(len(input()))", text), Program("import sys; print(sys.stdin.read()[-3:])", text)])
    assert [one.out for one in found] == ["100000\n", "üüü\n"]


def test_functions_are_called_and_told_apart(sandbox: Sandbox) -> None:
    source = """import math
def score(text, row):
    if text == 'bad':
        return 1 / 0
    while text == 'slow': pass
    return math.sqrt(row['n'])
"""
    calls = [["a", {"n": n * n}] for n in range(20)]
    calls[3][0], calls[7][0] = "bad", "slow"
    found = sandbox.call(source, "score", calls, Limits(seconds=1))
    assert [one.value for n, one in enumerate(found) if n not in (3, 7)] == [float(n) for n in range(20) if n not in (3, 7)]
    assert found[3].problem == "line 4: ZeroDivisionError: division by zero" and found[3].line == 4
    assert found[7].end == "time"
    lost = sandbox.call("x = 1", "score", [[1], [2]])
    assert all("there is no function called score" in one.problem for one in lost)
    broken = sandbox.call("def score(:", "score", [[1]])
    assert broken[0].end == "error" and broken[0].line == 1
    assert sandbox.call(source, "score", []) == []


def test_only_what_json_holds_comes_back(sandbox: Sandbox) -> None:
    found = sandbox.call("def f(x): return eval(x)", "f", [["float('nan')"], ["object()"], ["{'a': (1, 2.5, None, True)}"], ["10**400"]])
    assert not found[0].fine and not found[1].fine and "object" in found[1].problem
    assert found[2].value == {"a": [1, 2.5, None, True]} and found[3].fine


def test_a_function_that_always_overruns_is_given_up(sandbox: Sandbox) -> None:
    began = time.monotonic()
    found = sandbox.call("def f(x):\n  while True: pass", "f", [[n] for n in range(100)], Limits(seconds=0.5))
    assert {one.end for one in found} == {"time"} and len(found) == 100 and "in a row" in found[-1].problem
    assert time.monotonic() - began < 25


CHECK = """
def check(candidate):
    assert candidate(0, 0) == 0
    assert candidate(1, 2) == 3
check(add)
"""
CASE = """
import unittest
class T(unittest.TestCase):
    def setUp(self):
        self.x = 3
    def test_a(self):
        self.assertEqual(f(3), self.x)
    def test_b(self):
        self.assertTrue(f(0))
"""
SAME, DOUBLE = "def f(x): return x", "def f(x): return 2 * x"
TESTED = [
    (DOUBLE, "assert f(1) == 2\nassert f(2) == 5\nassert f(3) == 6", 3, 2, "assert f(2) == 5"),
    (DOUBLE, "def test_one():\n  assert f(1) == 2\ndef test_two():\n  assert f(1) == 3", 2, 1, "test_two()"),
    ("def add(a, b): return a - b", CHECK, 2, 1, "assert candidate(1, 2) == 3"),
    (SAME, CASE, 2, 1, "T('test_b').debug()"),
    (SAME, "for n in range(3):\n  assert f(n) == n", 1, 1, ""),
    (SAME, "cases = [1, 2]\nassert all(f(c) == c for c in cases)", 1, 1, ""),
    ("x = ", "assert True", 1, 0, ""),
    ("import sys; sys.exit(0)", "assert True", 1, 0, ""),
    ("def f(x):\n  while True: pass", "assert True\nassert f(1)", 2, 1, ""),
]


@pytest.mark.parametrize(("source", "tests", "total", "passed", "failed"), TESTED)
def test_tests_are_counted_one_by_one(sandbox: Sandbox, source: str, tests: str, total: int, passed: int, failed: str) -> None:
    found = sandbox.test([Task(source, tests)], Limits(seconds=1))[0]
    assert (found.total, found.passed, found.failed) == (total, passed, failed)
    assert found.fine == (total == passed) and bool(found.problem) != found.fine


def test_a_check_that_nobody_calls_is_handed_the_entry(sandbox: Sandbox) -> None:
    check = "def check(candidate):\n  assert candidate(2) == 4\n  assert candidate(3) == 6"
    found = sandbox.test([Task("def double(n): return n * 2", check, "double")])[0]
    assert found.fine and found.passed == found.total == 2


def test_many_programs_cost_no_interpreter_each(sandbox: Sandbox) -> None:
    began = time.monotonic()
    found = sandbox.test([Task("def f(x): return 2 * x", "assert f(2) == 4")] * 128)
    seconds = time.monotonic() - began
    assert all(one.fine for one in found)
    began = time.monotonic()
    for _ in range(8):
        subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)
    assert seconds < (time.monotonic() - began) * 16


def test_a_server_that_is_killed_is_started_anew(sandbox: Sandbox) -> None:
    sandbox.start()
    sandbox._process._process.kill()
    assert sandbox.run([Program("print(1)")])[0].out == "1\n"
    sandbox.close()
    assert sandbox.run([Program("print(2)")])[0].out == "2\n"


def test_what_it_leaves_is_nothing(sandbox: Sandbox) -> None:
    sandbox.run([Program("import time; time.sleep(0.01)")])
    pid = sandbox._process._process.pid
    sandbox.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_a_machine_without_any_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StateError) as caught, Sandbox(mechanism="none of these") as sandbox:
        sandbox.start()
    assert "bubblewrap" in caught.value.next_step and "Docker" in caught.value.next_step
