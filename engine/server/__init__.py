"""Our Tinker-compatible server: one process, one base model, any number of training runs and samplers.

`api` speaks HTTP, `wire` protobuf, `security` decides who may; `service` holds sessions, runs and futures and keeps
each run's requests in order; `worker` is the one thread that touches the model; `folder` loads a base of any family,
`layers` finds what can be adapted in it, `weights` are an adapter's or a whole copy's, `model` computes with either;
`trainer` and `sampler` use them, `losses` says what is minimised, `checkpoints` writes to disk, where `library` finds it
again and `rest` shows it; `owners` knows whose request it is.

The plain paths (padded batches, one request after the other) are meant to be obviously right and stay as the reference,
`--reference`. What is served is faster and proven equal: `decode` samples, by `slots`, `draw` and `dense`. The package
imports nothing of the engine but errors, system, platforms and rendering, so that it can be shipped alone.
"""

from __future__ import annotations

NOT_ALONE = 3  # the exit code of a server that found another one in its place
