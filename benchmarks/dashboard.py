"""What the dashboard's pages cost, on stores of the size that years of use make.

    python benchmarks/dashboard.py [--rounds 7] [--jobs 1000] [--points 1000000] [--long 100000] [--watchers 20]

Pages are run by Streamlit's own AppTest in this process, on SQLite in a temporary folder; nothing trains. Stated limits: a page on
1,000 jobs with 1,000,000 metric points 500 ms, a live update of a job with 100,000 steps 60 ms of CPU, a page switch 300 ms; the first
screen of a cold process 2.5 s (from starting Python to the list of runs, rendered); 20 watchers at 1 Hz 40 % of a core. A live update
is measured as the whole page run anew, AppTest's own work included, and as what the timer reruns, the fragment alone: watchers are
counted as 20 times the latter. Medians of rounds. Leaves out: the server's HTTP and websockets, the browser, the network between.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

NAMES = ("train_loss", "learning_rate", "grad_norm", "tokens_per_second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--long", type=int, default=100_000)
    parser.add_argument("--watchers", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thinker-bench-") as home:
        os.environ.update(THINKER_HOME=home, OMP_WAIT_POLICY="passive")
        print(f"load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        first, long = fill(options.jobs, options.points, options.long)
        report("first screen, cold process", cold(), 2500, "ms")
        measure(options, first, long)


def fill(count: int, points: int, long: int) -> tuple[str, str]:
    """Jobs at rest with their share of the points, and one long job that runs. -> ids of one of each."""
    from sqlalchemy import insert, update

    from engine import Engine
    from engine.store import schema

    with Engine() as engine:
        store, recipe = engine.store, engine.demo_recipe("piglatin")
        steps = points // (count * len(NAMES))
        ids = []
        for number in range(count):
            ids.append(
                store.create_job(recipe.merged({"name": f"run {number}", "training": {"learning_rate": 1e-4 * (1 + number % 9)}})).id
            )
        side = {"exact_match": 0.5, "exact_match_low": 0.45, "exact_match_high": 0.55, "token_f1": 0.5, "count": 400, "perplexity": 2.0}
        result = {
            "held_out": {"before": side, "after": side},
            "skills": {"before": 0.9, "after": 0.8},
            **{"better": 9, "worse": 9, "seconds": 9.0, "steps": steps, "tokens": steps * 1000},
            "examples": [{**dict.fromkeys(("prompt", "before", "after", "expected"), "x" * 60), "was_right": False, "is_right": True}] * 40,
        }
        with store.write() as connection:
            values = {"state": "done", "step": steps, "total_steps": steps, "tokens": steps * 1000, "training_seconds": steps * 0.1}
            connection.execute(update(schema.jobs).values(**values, result=json.dumps(result)))
            for job_id in ids:
                rows = [
                    {"job_id": job_id, "attempt": 1, "step": step, "name": name, "value": 4.0 / step, "at": 0.0}
                    for name in NAMES
                    for step in range(1, steps + 1)
                ]
                connection.execute(insert(schema.metrics), rows)
        job = store.create_job(recipe.merged({"name": "long"}))
        job = store.claim_job("bench", lease_s=1e6, job_id=job.id)
        store.transition(job.id, "training", attempt=job.attempt)
        for start in range(1, long + 1, 20_000):
            extend(store, job, start, min(long, start + 19_999), 2 * long)
        return ids[0], job.id


def extend(store, job, start: int, end: int, total: int) -> None:
    """Steps start to end of a running job."""
    rows = [{"step": step, "name": name, "value": 4.0 / step + step % 7 / 100} for step in range(start, end + 1) for name in NAMES]
    progress = {"step": end, "total_steps": total, "tokens": end * 1000, "training_seconds": end * 0.1}
    store.record(job.id, job.attempt, metrics=rows, progress=progress)


def cold() -> float:
    """Milliseconds from starting a Python to the list of runs, rendered."""
    code = (
        "import time, sys\nstart = float(sys.argv[1])\nfrom streamlit.testing.v1 import AppTest\n"
        f"page = AppTest.from_file({str(ROOT / 'app' / 'main.py')!r}, default_timeout=60).run()\n"
        "assert not page.exception and page.title\nprint(1000 * (time.time() - start))"
    )
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code, str(time.time())], cwd=ROOT, capture_output=True, text=True, check=True)
        times.append(float(done.stdout.split()[-1]))
    return statistics.median(times)


def measure(options: argparse.Namespace, first: str, long: str) -> None:
    """Warm pages, wall time and CPU."""
    from streamlit.testing.v1 import AppTest

    from app.components import job as job_page
    from engine import Engine
    from engine.jobs import host

    host.ensure_runner = lambda *_: None
    engine = Engine()
    job = engine.job(long)

    def page(name: str, **query: str) -> AppTest:
        made = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
        made.switch_page(str(ROOT / "pages" / name))
        for key, value in query.items():
            made.query_params[key] = value
        made.run()
        assert not made.exception, made.exception
        return made

    listed, searched = page("training.py"), page("training.py", search="run 77", state="finished")
    table, live = page("analytics.py"), page("training.py", job=long, smooth="20 steps")
    gc.collect()
    gc.freeze()
    lists = f"{options.jobs:,} jobs, {options.points:,} points"
    report(f"list of runs ({lists})", median(options.rounds, listed.run), 500, "ms")
    report(f"the same, searched ({lists})", median(options.rounds, searched.run), 500, "ms")
    report(f"analytics, first look ({lists})", median(options.rounds, lambda: page("analytics.py")), 500, "ms")
    report(f"analytics, again ({lists})", median(options.rounds, table.run), 500, "ms")
    report("page switch, to a run", median(options.rounds, lambda: page("training.py", job=first)), 300, "ms")
    at = [options.long]

    def go_on() -> None:
        at[0] += 2
        extend(engine.store, job, at[0] - 1, at[0], 2 * options.long)

    inner: list[float] = []
    real = job_page._view

    def timed(*arguments: object) -> None:
        start = time.thread_time()
        real(*arguments)
        inner.append(1000 * (time.thread_time() - start))

    job_page._view = timed
    cpu = median(3 * options.rounds, live.run, time.process_time, go_on)
    fragment = statistics.median(inner)
    report(f"live update, {options.long:,} steps ({len(NAMES)} curves), CPU, the whole page", cpu, 60, "ms")
    report("the same, what the timer reruns", fragment, 60, "ms")
    report(f"{options.watchers} watchers at 1 Hz, share of a core", options.watchers * fragment / 10, 40, "%")


def median(
    rounds: int, action: Callable[[], object], clock: Callable[[], float] = time.perf_counter, before: Callable[[], None] = lambda: None
) -> float:
    """Milliseconds, after one round that doesn't count; what happens `before` each isn't counted either."""
    action()
    times = []
    for _ in range(rounds):
        before()
        start = clock()
        action()
        times.append(1000 * (clock() - start))
    return statistics.median(times)


def report(what: str, value: float, limit: float, unit: str) -> None:
    print(f"| {what} | {value:,.0f} {unit} | {limit:,} {unit} | {'within' if value <= limit else 'OVER'} |", flush=True)


if __name__ == "__main__":
    main()
