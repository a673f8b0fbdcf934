"""Every test, in two halves side by side: those in a browser mostly wait, and leave the others their time.

    python -m tests [pytest's arguments]

With arguments, or on a machine with a single core, it is pytest alone. What the browser half says comes after the other half, whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

IN_A_BROWSER = "browser"
NONE_COLLECTED = 5  # pytest's exit code


def main(arguments: list[str]) -> int:
    """The worse of the two halves' exit codes."""
    pytest = [sys.executable, "-m", "pytest"]
    if arguments or (os.cpu_count() or 1) < 2:
        return subprocess.call([*pytest, *arguments])
    with tempfile.TemporaryFile() as said:
        beside = subprocess.Popen(
            [*pytest, "-m", IN_A_BROWSER, "-p", "no:cacheprovider"], stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        try:
            codes = [subprocess.call([*pytest, "-m", f"not {IN_A_BROWSER}"], stdin=subprocess.DEVNULL), beside.wait()]
        except KeyboardInterrupt:
            # They heard it as well, and end by themselves.
            codes = [beside.wait(), 2]
        said.seek(0)
        print("\nIn a browser:", flush=True)
        sys.stdout.buffer.write(said.read())
        sys.stdout.flush()
    return max(0 if code == NONE_COLLECTED else abs(code) for code in codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
