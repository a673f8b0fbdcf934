"""Which saved states can go: worked out by hand."""

from __future__ import annotations

from itertools import pairwise

from engine.training.pruning import GOING_ON, TO_USE, Saved, prunable


def saved(*steps: int, kind: str = GOING_ON, size: int = 10, **more: object) -> list[Saved]:
    return [Saved(f"{kind}/{step}", kind, step, size, "schedule", **more) for step in steps]


def gone(found: list[Saved]) -> list[str]:
    return [one.path for one in found]


def go(states: list[Saved], **options: object) -> list[str]:
    return gone(prunable(states, **{"keep_last": None, "most_bytes": None, "best_step": None, **options}))


def test_without_a_policy_all_stays() -> None:
    assert go(saved(1, 2, 3)) == []


def test_the_last_few_stay_and_what_is_to_use() -> None:
    both = [one for step in (1, 2, 3, 4) for one in (*saved(step), *saved(step, kind=TO_USE))]
    assert go(both, keep_last=2) == ["weights/1", "weights/2"]
    assert go(both, keep_last=9) == []


def test_best_pinned_ends_of_stages_and_what_is_needed_stay() -> None:
    states = saved(1, 2, 3, 4, 5, 6, 7)
    states[1] = Saved("weights/2", GOING_ON, 2, 10, "stage")
    states[2] = Saved("weights/3", GOING_ON, 3, 10, "schedule", pinned=True)
    assert go(states, keep_last=1, best_step=4, needed={"weights/5"}) == ["weights/1", "weights/6"]


def test_what_was_undone_goes_first_unless_it_is_pinned() -> None:
    states = [*saved(1), *saved(2, undone=True), Saved("weights/2b", GOING_ON, 2, 10), Saved("x", GOING_ON, 2, 1, pinned=True, undone=True)]
    assert go(states) == ["weights/2"]
    assert go(states, keep_last=1) == ["weights/2", "weights/1"]


def test_a_limit_takes_states_first_then_thins_what_is_to_use() -> None:
    both = [one for step in (10, 20, 30, 40, 50) for one in (*saved(step, size=30), *saved(step, kind=TO_USE, size=10))]
    # 200 bytes in all; down to 110 by three states, from the oldest on.
    assert go(both, most_bytes=110) == ["weights/10", "weights/20", "weights/30"]
    # The last state stays in any case. Of what is to use, those go that are missed least: 20, 40 and 50 still show the whole way.
    found = go(both, most_bytes=60)
    assert found[:4] == ["weights/10", "weights/20", "weights/30", "weights/40"]
    assert found[4:] == ["sampler_weights/10", "sampler_weights/30"]
    assert "sampler_weights/50" not in go(both, most_bytes=0) and "weights/50" not in go(both, most_bytes=0)


def test_the_first_and_the_way_between_are_thinned_evenly() -> None:
    used = saved(*range(1, 18), kind=TO_USE, size=1)
    kept = sorted(set(range(1, 18)) - {int(path.rpartition("/")[2]) for path in go(used, most_bytes=5)})
    assert len(kept) == 5 and kept[-1] == 17
    assert max(b - a for a, b in pairwise(kept)) <= 8, kept
