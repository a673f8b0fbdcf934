"""The bug-finder demo: a small code review. Given a one-line Python function, name the bug in it, if any.

The functions are put together by rule; names in them are words, held-out ones in the proof alone. Six kinds of bug are planted, each
by a change to a sound function, and sound functions use the same constructs rightly. Knows nothing of how files are written.
"""

from __future__ import annotations

from collections.abc import Callable
from keyword import iskeyword

from engine.data.demos.making import distinct, held_out, with_replay
from engine.data.demos.skills import Pair
from engine.data.demos.words import Dice, held_out_words, train_words

TASK_ROWS = 2100
HELD_OUT_ROWS = 350
SOUND = "no bug"
# Sound functions: {f} is the function's name, {a}, {b}, {c} its parameters, {n} a number, {s} a text.
PLAIN = (
    "def {f}({a}): return {a} + {n}", "def {f}({a}, {b}): return {a} * {b}", "def {f}({a}): return len({a}) > {n}",
    "def {f}({a}, {b}): return max({a}, {b})", "def {f}({a}): return sorted({a})[{n}]", "def {f}({a}, {b}): return {a}[{b}]",
    "def {f}({a}): return [{b} for {b} in {a}]", "def {f}({a}): return sum({a}) / len({a})", "def {f}({a}, {b}): return {a}.get({b})",
    "def {f}({a}): return {a}.strip().lower()", "def {f}({a}, {b}): print({a}, {b})", "def {f}({a}): return ({a} - {n}) * {n}",
    "def {f}({a}, {b}): return {a}.split({b})[0]", "def {f}({a}): return str({a}) + '{s}'", "def {f}({a}, {b}): return {b} in {a}",
    "def {f}({a}): return list(reversed({a}))", "def {f}({a}, {b}): return abs({a} - {b}) < {n}", "def {f}({a}): return not {a}",
    "def {f}({a}): return int({a}) % {n}", "def {f}({a}, {b}): {a}.append({b})", "def {f}({a}): return {a}['{s}']",
)  # fmt: skip
EQUALS = (
    "def {f}({a}): return {a} == {n}", "def {f}({a}): return {a} == '{s}'", "def {f}({a}, {b}): return {a} == '{s}' or {b}",
    "def {f}({a}, {b}): return {b} and {a} == {n}", "def {f}({a}): return len({a}) == {n}", "def {f}({a}): return {a}[0] == '{s}'",
)  # fmt: skip
NONE = (
    "def {f}({a}): return {a} is None", "def {f}({a}): return {a} is not None", "def {f}({a}, {b}): return {b} if {a} is None else {a}",
    "def {f}({a}, {b}): return {a} if {a} is not None else {b}", "def {f}({a}): return len({a}) if {a} is not None else {n}",
    "def {f}({a}, {b}): return {a} is None and {b}",
)  # fmt: skip
DEFAULTS = (
    "def {f}({a}, {b}={n}): return {a} + {b}", "def {f}({a}, {b}='{s}'): return {a} + {b}", "def {f}({a}, {b}=None): return {b} or {a}",
    "def {f}({a}, {b}=()): return [*{b}, {a}]", "def {f}({a}={n}): return {a} * {n}", "def {f}({a}, {b}=True): return {a} if {b} else {n}",
)  # fmt: skip
MUTABLE = (
    "def {f}({a}, {b}=[]): return {b} + [{a}]", "def {f}({a}, {b}=[]): {b}.append({a})", "def {f}({a}, {b}={{}}): return {b}.get({a})",
    "def {f}({a}=[]): return len({a}) + {n}", "def {f}({a}={{}}): return list({a})", "def {f}({a}, {b}={{}}): {b}[{a}] = {n}",
)  # fmt: skip
METHODS = (
    "def {f}(self): return self.{a}", "def {f}(self, {a}): self.{b} = {a}", "def {f}(self, {a}): return self.{b} + {a}",
    "def {f}(self): return len(self.{a})", "def {f}(self, {a}): return self.{b}.get({a})", "def {f}(self): return self.{a} * {n}",
    "def {f}(self, {a}): self.{b}.append({a})", "def {f}(self, {a}, {b}): return self.{c}({a}, {b})",
)  # fmt: skip
ALL_SOUND = (PLAIN, EQUALS, NONE, DEFAULTS, METHODS)


def _fill(form: str, dice: Dice, words: list[str]) -> str:
    names: list[str] = []
    while len(names) < 5:
        word = dice.choice(words)
        if word not in names and not iskeyword(word):
            names.append(word)
    f, a, b, c, s = names
    return form.format(f=f, a=a, b=b, c=c, s=s, n=dice.randint(0, 99))


def _sound(dice: Dice, words: list[str]) -> str:
    return _fill(dice.choice(dice.choice(ALL_SOUND)), dice, words)


def _mutable_default(dice: Dice, words: list[str]) -> str:
    return _fill(dice.choice(MUTABLE), dice, words)


def _is_with_a_literal(dice: Dice, words: list[str]) -> str:
    return _fill(dice.choice(EQUALS).replace("==", dice.choice(("is", "is not"))), dice, words)


def _compared_to_none(dice: Dice, words: list[str]) -> str:
    return _fill(dice.choice(NONE).replace("is not None", "!= None").replace("is None", "== None"), dice, words)


def _missing_colon(dice: Dice, words: list[str]) -> str:
    return _sound(dice, words).replace("): ", ") ", 1)


def _unbalanced_bracket(dice: Dice, words: list[str]) -> str:
    while True:
        head, body = _sound(dice, words).split(": ", 1)
        places = [place for place, letter in enumerate(body) if letter in "()[]"]
        if places:
            place = dice.choice(places)
            return f"{head}: {body[:place]}{body[place + 1 :]}"


def _missing_self(dice: Dice, words: list[str]) -> str:
    form = dice.choice(METHODS).replace("(self, ", "(", 1).replace("(self)", "()", 1)
    return _fill(form, dice, words)


KINDS: dict[str, Callable[[Dice, list[str]], str]] = {
    SOUND: _sound,
    "mutable default": _mutable_default,
    "is with a literal": _is_with_a_literal,
    "comparison to None": _compared_to_none,
    "missing colon": _missing_colon,
    "unbalanced bracket": _unbalanced_bracket,
    "missing self": _missing_self,
}


def task(dice: Dice, words: list[str]) -> Pair:
    """A function to review and what is wrong with it, each kind equally often."""
    kind = dice.choice(list(KINDS))
    return f"Review: {KINDS[kind](dice, words)}", kind


def train_rows() -> list[dict]:
    """What to train on."""
    dice, words = Dice(0), list(train_words())
    return with_replay(distinct(lambda: task(dice, words), TASK_ROWS))


def held_out_rows(seen: set[str]) -> list[dict]:
    """What to prove with: names are held-out words, none of `seen`."""
    dice, words = Dice(1000), [word for word in held_out_words() if word not in seen]
    return held_out(distinct(lambda: task(dice, words), HELD_OUT_ROWS))
