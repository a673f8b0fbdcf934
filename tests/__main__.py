"""Every test, in three parts side by side: those in a browser and those that kill processes mostly wait, and leave the others their time.

    python -m tests [--fast | pytest's arguments]

With other arguments, or on a machine with a single core, it is pytest alone; the fast tests are two parts. What the other parts say comes
after the first, whole. A few tests that failed while all parts wanted the same cores run once more, by themselves: what fails then too has
failed, and what passes is named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import PARTS

FAILED, NONE_COLLECTED = 1, 5  # pytest's exit codes
FEW = 5  # more than these were no accident


def main(arguments: list[str]) -> int:
    """The worst of the parts' exit codes."""
    pytest = [sys.executable, "-m", "pytest"]
    fast = arguments == ["--fast"]
    if (arguments and not fast) or (os.cpu_count() or 1) < 2:
        return subprocess.call([*pytest, *arguments])
    parts = PARTS[:2] if fast else PARTS
    with tempfile.TemporaryDirectory() as folder:
        caches = [Path(folder) / f"cache-{number}" for number in range(len(parts))]
        commands = [[*pytest, "-o", f"cache_dir={cache}", *arguments, "--part", part] for cache, part in zip(caches, parts, strict=True)]
        logs = [open(Path(folder) / str(number), "w+b") for number in range(1, len(parts))]  # noqa: SIM115 - closed below
        quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        beside = [subprocess.Popen(command, stdout=log, **quiet) for command, log in zip(commands[1:], logs, strict=True)]
        try:
            codes = [subprocess.call(commands[0], stdin=subprocess.DEVNULL), *(process.wait() for process in beside)]
        except KeyboardInterrupt:
            # They heard it as well, and end by themselves.
            codes = [2, *(process.wait() for process in beside)]
        for title, log in zip(parts[1:], logs, strict=True):
            log.seek(0)
            print(f"\nThe tests {title}:", flush=True)
            sys.stdout.buffer.write(log.read())
            log.close()
        sys.stdout.flush()
        failed = [test for cache in caches for test in _failed(cache)]
        if set(codes) <= {0, FAILED, NONE_COLLECTED} and 0 < len(failed) <= FEW:
            return _again(pytest, failed)
    return max(0 if code == NONE_COLLECTED else abs(code) for code in codes)


def _failed(cache: Path) -> list[str]:
    found = cache / "v" / "cache" / "lastfailed"
    return list(json.loads(found.read_text())) if found.exists() else []


def _again(pytest: list[str], failed: list[str]) -> int:
    print("\nOnce more, by themselves:", *failed, sep="\n  ", flush=True)
    code = subprocess.call([*pytest, *failed], stdin=subprocess.DEVNULL)
    if not code:
        print("They passed by themselves, and failed beside the others:", *failed, sep="\n  ", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
