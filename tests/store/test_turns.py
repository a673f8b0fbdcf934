"""Made once, and never too many: what many ask for at the same moment, in threads and in processes, on both databases."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import NotAllowed

ROOT = Path(__file__).parents[2]
# Opens the database, says so, and asks as soon as it is told to.
ASK = """
import json, sys
from engine.errors import NotAllowed
from engine.recipe import Recipe
from engine.store import Store
store, recipe = Store(sys.argv[1] or None), Recipe.make(json.loads(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
said = []
for _ in range(int(sys.argv[3])):
    try:
        said.append(store.create_job(recipe, "visitor-1", **json.loads(sys.argv[4])).id)
    except NotAllowed:
        said.append("refused")
print(json.dumps(said))
"""


def at_once(ask: Callable[[int], Any], count: int = 8) -> list[Any]:
    """What comes of it when so many threads ask at the same moment."""
    gate, found = threading.Barrier(count), []

    def one(number: int) -> None:
        gate.wait(30)
        try:
            found.append(ask(number))
        except NotAllowed as error:
            found.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert len(found) == count
    return found


def in_processes(url: str | None, recipe: Any, times: int, **options: Any) -> list[str]:
    command = [sys.executable, "-c", ASK, url or "", recipe.to_json(), str(times), json.dumps(options)]
    made = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        for process in made:
            assert process.stdout.readline().strip() == "ready"
        for process in made:
            process.stdin.write("go\n")
            process.stdin.flush()
        return [said for process in made for said in json.loads(process.communicate(timeout=60)[0])]
    finally:
        for process in made:
            process.kill()
            process.wait(10)


@pytest.fixture
def stores(open_store):
    return [open_store() for _ in range(4)]


def test_one_proposal_becomes_one_job(stores, recipe):
    made = at_once(lambda number: stores[number % 4].create_job(recipe, token="proposal:a:3"))
    assert len({job.id for job in made}) == 1 and len(stores[0].jobs()) == 1
    again = stores[1].create_job(recipe.merged({"name": "another by now"}), token="proposal:a:3")
    assert again.id == made[0].id and again.name == made[0].name
    assert len({stores[0].create_job(recipe, token=token).id for token in ("proposal:a:4", "proposal:a:3", "", "")}) == 4


def test_tokens_are_each_owners_own(stores, recipe):
    mine, theirs = (stores[0].create_job(recipe, owner, token="proposal:a:3") for owner in ("local", "somebody else"))
    assert mine.id != theirs.id and theirs.owner == "somebody else"


def test_what_was_deleted_can_be_launched_again(stores, recipe):
    first = stores[0].create_job(recipe, token="draft:1")
    stores[0].delete_job(first.id)
    assert stores[0].create_job(recipe, token="draft:1").id != first.id


def test_one_proposal_becomes_one_job_in_many_processes(stores, url, recipe):
    said = in_processes(url, recipe, 5, token="draft:1")
    assert len(said) == 15 and len(set(said)) == 1
    assert [job.id for job in stores[0].jobs("visitor-1")] == said[:1]


def test_never_more_than_the_turns_there_are(stores, recipe):
    said = at_once(lambda number: stores[number % 4].create_job(recipe, "visitor-1", most=3))
    assert sum(isinstance(one, NotAllowed) for one in said) == 5 and len(stores[0].jobs("visitor-1")) == 3
    assert stores[0].create_job(recipe, "visitor-2", most=3)
    with pytest.raises(NotAllowed, match="the most at a time"):
        stores[0].require_turn("visitor-1", 3)


def test_never_more_than_the_turns_in_many_processes(stores, url, recipe):
    said = in_processes(url, recipe, 4, most=3)
    assert len(said) == 12 and said.count("refused") == 9 and len(stores[0].jobs("visitor-1")) == 3


def test_resuming_takes_a_turn_too(stores, recipe):
    store = stores[0]
    resting = [store.create_job(recipe, "visitor-1") for _ in range(6)]
    for job in resting:
        store.set_control(job.id, "pause", "visitor-1")
    said = at_once(lambda number: stores[number % 4].resume(resting[number].id, "visitor-1", most=3), 6)
    assert sum(isinstance(one, NotAllowed) for one in said) == 3
    assert [job.state for job in store.jobs("visitor-1")].count("queued") == 3


def test_a_run_that_was_cut_off_keeps_its_own_turn(stores, recipe):
    store = stores[0]
    jobs = [store.create_job(recipe, "visitor-1", most=3) for _ in range(3)]
    store.claim_job("r", job_id=jobs[0].id)
    store.transition(jobs[0].id, "needs_key", attempt=1)
    with pytest.raises(NotAllowed):
        # It goes on by itself once its key is there.
        store.create_job(recipe, "visitor-1", most=3)
    assert store.resume(jobs[0].id, "visitor-1", most=3).state == "queued"


def test_a_start_is_noted_once_whatever_is_said_meanwhile(stores):
    talk = stores[0].add_talk("local", "demo")
    said = at_once(lambda number: stores[number % 4].extend_talk(talk.id, "local", [{"n": number}], {"n": number}, only_after=0))
    assert len(stores[0].talk(talk.id, "local").turns) == 1 and len({json.dumps(one.turns) for one in said}) == 1
    at_once(lambda number: stores[number % 4].extend_talk(talk.id, "local", [{"n": number}], {}))
    assert len(stores[0].talk(talk.id, "local").turns) == 9
