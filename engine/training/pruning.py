"""Which saved states of a run can go: a policy over what there is. Pure; deletes nothing.

for good    pinned, the best, the last, a stage's end, what something else stands on
in turn     states that no later attempt went on from; states to go on from beyond the newest few; where a limit is passed, all
            states to go on from, then every other one to use, so that what is left still shows the whole way
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

GOING_ON, TO_USE = "weights", "sampler_weights"
FOR_GOOD = ("stage", "end")
GB = 10**9


@dataclass(frozen=True)
class Saved:
    """One state that was saved. `undone`: the run took another way since."""

    path: str
    kind: str
    step: int
    bytes: int
    reason: str = ""
    pinned: bool = False
    undone: bool = False


def prunable(
    saved: Sequence[Saved], *, keep_last: int | None, most_bytes: float | None, best_step: int | None, needed: Collection[str] = ()
) -> list[Saved]:
    """What can go, in the order in which it should. `saved` is in the order of saving, each path once; `needed` are paths that stay."""
    line = [one for one in saved if not one.undone]
    last = {kind: next((one.path for one in reversed(line) if one.kind == kind), None) for kind in (GOING_ON, TO_USE)}
    stays = {
        one.path
        for one in saved
        if one.pinned
        or one.path in needed
        or (not one.undone and (one.reason in FOR_GOOD or one.step == best_step or one.path == last[one.kind]))
    }
    going = [one for one in saved if one.undone and one.path not in stays]
    states = [one for one in line if one.kind == GOING_ON]
    if keep_last is not None:
        going += [one for one in states[: max(0, len(states) - keep_last)] if one.path not in stays]
    if most_bytes is None:
        return going
    left = sum(one.bytes for one in saved) - sum(one.bytes for one in going)
    gone = {one.path for one in going}
    for one in [*(one for one in states if one.path not in stays | gone)]:
        if left <= most_bytes:
            return going
        going.append(one)
        left -= one.bytes
    used = [one for one in line if one.kind == TO_USE]
    while left > most_bytes and (one := _least_missed(used, stays)):
        used.remove(one)
        going.append(one)
        left -= one.bytes
    return going


def _least_missed(used: Sequence[Saved], stays: Collection[str]) -> Saved | None:
    """The one whose neighbours are nearest to each other, the older of two."""
    free = [place for place, one in enumerate(used) if one.path not in stays]
    if not free:
        return None

    def gap(place: int) -> int:
        before = used[place - 1].step if place else 0
        after = used[place + 1].step if place + 1 < len(used) else used[place].step
        return after - before

    return used[min(free, key=gap)]
