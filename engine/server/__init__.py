"""Our Tinker-compatible server: one process, one base model, any number of training runs and samplers.

`api` speaks HTTP, `wire` protobuf, `security` decides who may; `service` holds sessions, runs and futures and keeps
each run's requests in order; `worker` is the one thread that touches the model; `folder` loads a base of any family,
`layers` finds what can be adapted in it, `weights` are an adapter's or a whole copy's, `model` computes with either;
`trainer` and `sampler` use them, `losses` says what is minimised, `checkpoints` writes to disk, where `library` finds it
again and `rest` shows it; `owners` knows whose request it is.

This is the plain version: padded batches, one request after the other. It is meant to be obviously right, and stays
as the reference that faster paths are tested against. It imports nothing of the engine but errors, system and
rendering, so that it can be shipped to another machine alone.
"""
