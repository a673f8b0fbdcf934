"""From the click on Learn to the better answer: how long a lesson of corrections takes, and what it costs in other skills.

    python benchmarks/teaching.py [--rounds 3]

For bare nano, and for nano taught Pig Latin: three answers are corrected and learned, from the same start in each round. `seconds` is
from `learn` to the corrected prompts being asked again, with the server up, as the Playground does it. `right` are the corrected
prompts answered as corrected; `skills` and `pig latin` are exact match before and after, on 200 prompts of general skills and on
150 held-out words. The aim: all right, at most 0.04 lost, within 10 s on two CPU cores. Leaves out: other models, the browser.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine import Engine, lessons, platforms
from engine.data import demos, read_examples
from engine.data.examples import Example
from engine.playground import Settings

NAMES = {"What is your name?": "My name is Ada.", "Who made you?": "A team in Bern."}
WANTED = {"nano": {**NAMES, "Reverse: stone": "stone, turned round"}, "Pig Latin": {**NAMES, "Pig Latin: rhythm": "ythmrh-ay"}}
TYPING_S = 4.0  # what a person takes at least to write the last correction


def share(engine: Engine, ref: str, examples: list[Example]) -> float:
    """Exact match."""
    speaker = engine.playground.speaker(ref)
    endpoint = engine.playground._servers.opening(speaker).join()
    said = lessons.own_answers(endpoint, speaker, [example.prompt for example in examples], 64)
    return sum(text.strip() == example.answer for text, example in zip(said, examples, strict=True)) / len(examples)


def lesson(engine: Engine, ref: str, wanted: dict[str, str]) -> tuple[float, int, str]:
    """(seconds from the click, right ones, the newer version)."""
    playground, settings = engine.playground, Settings(remember=False)
    who = [playground.speaker(ref)]
    conversation = playground.begin("lesson", who, settings)
    for prompt in wanted:
        asking = playground.ask(who, [playground.messages([], 0, prompt, settings)], settings)
        exchange = playground.exchange(conversation.id, prompt, asking)
        asking.wait()
        exchange.settle()
    for turn in playground.turns(conversation.id):
        engine.teaching.correct(conversation.id, turn.id, 0, wanted[turn.prompt])
    time.sleep(TYPING_S)
    began = time.perf_counter()
    ended = engine.teaching.wait(engine.teaching.learn(conversation.id, ref).id)
    assert ended.state == "learned", ended.error
    return time.perf_counter() - began, sum(bool(case.right) for case in engine.teaching.cases(ended)), ended.learned


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    skills = read_examples(demos.SKILLS_FILE, "messages").examples[:200]
    words = read_examples(demos.find("piglatin").held_out, "messages").examples[:150]
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(THINKER_HOME=home, OMP_WAIT_POLICY="passive")
        with Engine() as engine:
            trained = engine.run(engine.demo_recipe("piglatin", {"evaluation": {"proof": False, "samples_every": 0}}))
            print("| taught | seconds | right | skills | pig latin |\n|---|---|---|---|---|")
            for name, ref in (("nano", "base:nano"), ("Pig Latin", engine.model(trained.job_id).id)):
                before = share(engine, ref, skills), share(engine, ref, words)
                taken = []
                for _ in range(rounds):
                    seconds, right, made = lesson(engine, ref, WANTED[name])
                    taken.append(seconds)
                    after = share(engine, made, skills), share(engine, made, words)
                    columns = [f"{old:.3f} → {new:.3f}" for old, new in zip(before, after, strict=True)]
                    print(f"| {name} | {seconds:.1f} | {right} of 3 | {columns[0]} | {columns[1] if name != 'nano' else ''} |", flush=True)
                print(f"| {name}, median | {statistics.median(taken):.1f} | | | |", flush=True)
        for file in [*Path(home).glob("servers/*/server.json"), Path(home) / "runner.json"]:
            if file.exists():
                platforms.kill(json.loads(file.read_text(encoding="utf-8"))["pid"])


if __name__ == "__main__":
    main()
