"""Jobs: what a run's states are, who carries it through them, and what survives when something is killed.

`states` is the one table of states; `run` is the handle that training code gets; `runner` gives each job a thread;
`host` is the runner's own process; `logs` writes what happened. Knows nothing of how a model is trained:
that is a function, `execute(job_run) -> outcome`, which the host looks up by name.
"""
