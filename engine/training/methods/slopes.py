"""Numbers that remember how they came to be, so that a person's own loss needs no framework to be differentiated (reverse mode).

This file's text goes into the sandbox along with the person's function, so it imports nothing but the standard library's math and knows
nothing of the project.
"""

import math as _math


class Slope:
    """A number and, for each number that it was made of, the derivative by it."""

    __slots__ = ("made_of", "slope", "value")

    def __init__(self, value, made_of=()):
        self.value, self.made_of, self.slope = float(value), made_of, 0.0

    def _two(self, other, value, by_self, by_other):
        if isinstance(other, Slope):
            return Slope(value, ((self, by_self), (other, by_other)))
        return Slope(value, ((self, by_self),))

    def __add__(self, other):
        return self._two(other, self.value + _plain(other), 1.0, 1.0)

    def __sub__(self, other):
        return self._two(other, self.value - _plain(other), 1.0, -1.0)

    def __rsub__(self, other):
        return Slope(_plain(other) - self.value, ((self, -1.0),))

    def __mul__(self, other):
        return self._two(other, self.value * _plain(other), _plain(other), self.value)

    def __truediv__(self, other):
        divisor = _plain(other)
        return self._two(other, self.value / divisor, 1 / divisor, -self.value / divisor**2)

    def __rtruediv__(self, other):
        return Slope(_plain(other) / self.value, ((self, -_plain(other) / self.value**2),))

    def __pow__(self, other):
        if isinstance(other, Slope):
            return _exp(other * _log(self))
        return Slope(self.value**other, ((self, other * self.value ** (other - 1)),))

    def __rpow__(self, other):
        return _exp(self * _math.log(other))

    def __neg__(self):
        return Slope(-self.value, ((self, -1.0),))

    def __pos__(self):
        return self

    def __abs__(self):
        return -self if self.value < 0 else self

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other):
        return self.value < _plain(other)

    def __le__(self, other):
        return self.value <= _plain(other)

    def __gt__(self, other):
        return self.value > _plain(other)

    def __ge__(self, other):
        return self.value >= _plain(other)

    def __float__(self):
        raise TypeError("a log-probability was made a plain number, which forgets its slope: use exp, log, sqrt, tanh, sigmoid as they are")

    __int__ = __float__

    def __repr__(self):
        return f"{self.value:g}"


def _plain(number):
    return number.value if isinstance(number, Slope) else float(number)


def _chain(value, slope):
    def applied(number):
        if not isinstance(number, Slope):
            return value(number)
        return Slope(value(number.value), ((number, slope(number.value)),))

    return applied


def _one_over_one_plus(x):
    return 1 / (1 + _math.exp(-x)) if x >= 0 else _math.exp(x) / (1 + _math.exp(x))


def _log_of_it(x):
    return -_math.log1p(_math.exp(-x)) if x >= 0 else x - _math.log1p(_math.exp(x))


_exp = _chain(_math.exp, _math.exp)
_log = _chain(_math.log, lambda x: 1 / x)
_GIVEN = {
    "exp": _exp,
    "log": _log,
    "sqrt": _chain(_math.sqrt, lambda x: 0.5 / _math.sqrt(x)),
    "tanh": _chain(_math.tanh, lambda x: 1 - _math.tanh(x) ** 2),
    "sigmoid": _chain(_one_over_one_plus, lambda x: _one_over_one_plus(x) * _one_over_one_plus(-x)),
    "log_sigmoid": _chain(_log_of_it, lambda x: _one_over_one_plus(-x)),
}
for _name, _function in _GIVEN.items():
    # What the person has named so is theirs.
    globals().setdefault(_name, _function)


def _with_slopes(function, logprobs, weights, row):
    """-> [the loss, its derivative by each log-probability]; None for a loss that is no number"""
    known = [Slope(value) for value in logprobs]
    found = function(known, weights, row)
    if not isinstance(found, Slope):
        return [float(found) if isinstance(found, (int, float)) else None, [0.0] * len(logprobs)]
    ordered, seen, ahead = [], set(), [(found, False)]
    while ahead:
        number, done = ahead.pop()
        if done:
            ordered.append(number)
        elif id(number) not in seen:
            seen.add(id(number))
            ahead.append((number, True))
            ahead.extend((before, False) for before, _ in number.made_of)
    found.slope = 1.0
    for number in reversed(ordered):
        for before, slope in number.made_of:
            before.slope += slope * number.slope
    return [found.value, [number.slope for number in known]]
