"""What each method is shown to do, on nano and a CPU: the demos of methods, run whole, one after the other.

    python benchmarks/methods.py [NAME ...]     all of them if nothing is said; `overdone` is RLHF without a brake

Each is run in a data directory of its own. The stated limits: DPO ranks more than 95 % of held-out pairs rightly while right answers rise;
RL brings the score above 0.8; the reward model ranks more than 80 % of held-out pairs rightly, and RLHF's win rate, by a judge that is not
the reward model, over at least 300 prompts, is above 50 % with its whole 95 % interval; students without the prompt are at most 5 points
behind their teacher with it. Leaves out: other models and peers.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo import end_servers

from engine import Engine, knowledge
from engine.engine import Result
from engine.evaluation import outcome

NAMES = ("piglatin", "pairs", "score", "judged", "imitate", "corrected", "overdone")
UNBRAKED = {"training": {"steps": 60, "batch_size": 16, "learning_rate": 0.001}, "rl": {"group_size": 8, "max_new_tokens": 64, "kl": 0.0}}


def recipe(engine: Engine, name: str) -> Any:
    """The demo's recipe; `overdone` is the one of RLHF, four times as long, twice as fast and without a KL penalty."""
    if name != "overdone":
        return engine.demo_recipe(name)
    values = knowledge.demo_recipe("judged")
    return engine.demo_recipe("judged", {"then": [{**values["then"][0], **UNBRAKED}]})


def told(engine: Engine, found: Result) -> dict[str, Any]:
    """What the demo's limits speak of, as far as it has it: first and last held-out numbers, the win rate."""
    before, after = found.held_out["before"], found.held_out["after"]
    numbers: dict[str, Any] = {"exact": f"{before['exact_match']:.3f} -> {after['exact_match']:.3f} on {after['count']}"}
    for name in ("held_out_preference_accuracy", "reward", "held_out_reward", "kl", "held_out_teacher_kl"):
        if curve := engine.curve(found.job_id, name):
            numbers[name] = f"{curve[0][1]:.3f} -> {curve[-1][1]:.3f}"
    if "teacher_exact_match" in after:
        numbers["teacher"] = f"{after['teacher_exact_match']:.3f}"
    if won := outcome.wins(found.to_dict()):
        numbers["wins"] = f"{won.rate:.3f} ({won.low:.3f} to {won.high:.3f}; {won.wins}/{won.ties}/{won.losses})"
    numbers["skills"] = f"{found.skills['before']:.2f} -> {found.skills['after']:.2f}"
    return numbers


def missed(engine: Engine, name: str, found: Result) -> list[str]:
    """Which of the stated limits it misses."""
    before, after, won = found.held_out["before"], found.held_out["after"], outcome.wins(found.to_dict())
    ranked = [value for _, value in engine.curve(found.job_id, "held_out_preference_accuracy")]
    reward = [value for _, value in engine.curve(found.job_id, "reward")]
    limits = {
        "pairs": {"ranks 95 %": ranked and ranked[-1] > 0.95, "right answers rise": after["exact_match"] > before["exact_match"]},
        "score": {"score 0.8": reward and sum(reward[-5:]) / 5 > 0.8},
        "judged": {
            "ranks 80 %": ranked and ranked[-1] > 0.8,
            "surely better": won and won.low > 0.5,
            "300 prompts": won and won.count >= 300,
        },
        "imitate": {"within 5 points": after["exact_match"] >= after.get("teacher_exact_match", 2) - 0.05},
    }
    limits["corrected"] = limits["imitate"]
    return [limit for limit, kept in limits.get(name, {}).items() if not kept]


def main(names: list[str]) -> int:
    """Runs and prints; the status says whether a limit was missed."""
    failed = False
    for name in names:
        with tempfile.TemporaryDirectory() as home:
            os.environ["THINKER_HOME"] = home
            began = time.perf_counter()
            with Engine() as engine:
                found = engine.run(recipe(engine, name))
                wall, numbers, gone = time.perf_counter() - began, told(engine, found), missed(engine, name, found)
            cpu = end_servers(Path(home))
        print(f"{name}: training {found.seconds:.1f} s, wall {wall:.1f} s, server CPU {cpu:.1f} s, load {os.getloadavg()[0]:.1f}")
        for key, value in numbers.items():
            print(f"    {key}: {value}")
        for limit in gone:
            failed = True
            print(f"    MISSED: {limit}")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(NAMES)))
