"""Runs Python programs that nobody vouches for: shut off from files, network, other programs and this process's environment, with
limits on time, memory and output.

    with Sandbox() as sandbox:
        sandbox.run([Program("print(6 * 7)")])                              # what each wrote
        sandbox.test([Task("def double(n): ...", "assert double(2) == 4")]) # which tests each passed
        sandbox.call("def reward(text): ...", "reward", [["a"], ["b"]])     # what a function gives back, call by call

By bubblewrap where it is installed, else by Landlock and a filter of system calls, else by Docker; each proves before its first program
that the usual ways out are shut. One server process inside forks a fresh process for each program, which costs milliseconds. Nothing
can be written, not even temporary files; of installed packages those of this Python can be imported. Knows nothing of training.
"""

from engine.sandbox.box import Limits, Outcome, Program, Sandbox, Task, available
from engine.sandbox.process import SANDBOXES

__all__ = ["SANDBOXES", "Limits", "Outcome", "Program", "Sandbox", "Task", "available"]
