"""Every test, in three parts side by side: those in a browser and those that kill processes mostly wait, and leave the others their time.

    python -m tests [pytest's arguments]

With arguments, or on a machine with a single core, it is pytest alone. What the other parts say comes after the first, whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from tests.conftest import PARTS

NONE_COLLECTED = 5  # pytest's exit code


def main(arguments: list[str]) -> int:
    """The worst of the parts' exit codes."""
    pytest = [sys.executable, "-m", "pytest"]
    if arguments or (os.cpu_count() or 1) < 2:
        return subprocess.call([*pytest, *arguments])
    first, *others = PARTS
    with tempfile.TemporaryDirectory() as folder:
        logs = [open(os.path.join(folder, str(number)), "w+b") for number, _ in enumerate(others)]  # noqa: SIM115 - closed below
        quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        beside = [
            subprocess.Popen([*pytest, "-p", "no:cacheprovider", "--part", part], stdout=log, **quiet)
            for part, log in zip(others, logs, strict=True)
        ]
        try:
            codes = [subprocess.call([*pytest, "--part", first], stdin=subprocess.DEVNULL), *(process.wait() for process in beside)]
        except KeyboardInterrupt:
            # They heard it as well, and end by themselves.
            codes = [2, *(process.wait() for process in beside)]
        for title, log in zip(others, logs, strict=True):
            log.seek(0)
            print(f"\nThe tests {title}:", flush=True)
            sys.stdout.buffer.write(log.read())
            log.close()
        sys.stdout.flush()
    return max(0 if code == NONE_COLLECTED else abs(code) for code in codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
