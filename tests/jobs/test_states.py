from __future__ import annotations

import pytest

from engine.jobs import states


@pytest.mark.parametrize("state", states.STATES)
def test_what_may_follow(state):
    followers = states.TRANSITIONS[state]
    assert followers <= set(states.STATES)
    if state in states.ACTIVE:
        assert {"failed", "interrupted"} <= followers and "queued" not in followers
    if state in states.RESUMABLE:
        assert states.allowed(state, "queued")
    if state in {"stopped", "failed"}:
        assert followers == {"queued"}
    assert states.allowed(state, "preparing") == (state in {"queued", "interrupted"})
    assert states.LIGHTS[state].label and states.LIGHTS[state].color in {"gray", "blue", "green", "orange", "red"}


def test_requests_are_moves_that_the_table_has():
    for targets in states.CONTROLS.values():
        for state, to in targets.items():
            assert state == to or states.allowed(state, to)


def test_the_end_is_the_end():
    assert states.TRANSITIONS["done"] == frozenset()
    assert sorted(states.FINAL) == ["done", "failed", "stopped"]
    assert not states.ACTIVE & (states.FINAL | states.RESUMABLE)
