"""Ways to spoil a request's body: its bytes, its protobuf fields on the wire, its JSON values. Knows no routes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

_DEEP = 2000


def spoil_protobuf(body: bytes, chance: random.Random) -> bytes:
    """One to three faults; now and then none of them matters."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        body = chance.choice((_fields, _fields, _fields, spoil_bytes))(body, chance)
    return body


def spoil_bytes(body: bytes, chance: random.Random) -> bytes:
    """Bits flipped, cut, repeated, thrown in."""
    place = chance.randrange(len(body) + 1)
    kind = chance.randrange(6)
    if kind == 0 and body:
        place = min(place, len(body) - 1)
        return body[:place] + bytes([body[place] ^ (1 << chance.randrange(8))]) + body[place + 1 :]
    if kind == 1:
        return body[:place]
    if kind == 2:
        return body[:place] + chance.randbytes(chance.randrange(1, 40)) + body[place:]
    if kind == 3:
        return body[:place] + body[place + chance.randrange(1, 20) :]
    if kind == 4:
        return body + body[place:]
    return chance.randbytes(chance.randrange(200))


def _fields(body: bytes, chance: random.Random) -> bytes:
    """A field at some depth is doubled, dropped, moved, given another number, wire type, length or content."""
    try:
        parts = list(_split(body))
    except ValueError:
        return spoil_bytes(body, chance)
    if not parts:
        return chance.randbytes(8)
    at = chance.randrange(len(parts))
    number, kind, content, raw = parts[at]
    if kind == 2 and content and chance.random() < 0.6:
        inner = _fields(content, chance)
        changed = _varint(number << 3 | 2) + _varint(len(inner)) + inner
    else:
        changed = chance.choice(
            (
                raw + raw,
                b"",
                _varint(chance.choice((0, 1, 7, 15, 99, 19000, 2**29 - 1)) << 3 | kind) + raw[len(_varint(number << 3 | kind)) :],
                _varint(number << 3 | chance.randrange(8)) + raw[len(_varint(number << 3 | kind)) :],
                _varint(number << 3 | 2) + _varint(chance.choice((2**31 - 1, 2**31, 2**63, 2**64 - 1, len(content) + 1))) + content,
                _varint(number << 3) + _varint(chance.choice((0, 2**31, 2**63 - 1, 2**63, 2**64 - 1))),
                _varint(number << 3) + b"\xff" * 11,
                _varint(number << 3 | 3) * chance.choice((1, 99, 5000)),
                b"".join(_nested(number, chance.choice((3, 99, 200)))),
                _varint(number << 3 | 2) + _varint(40) + chance.randbytes(40),
                _varint(number << 3 | 2) + b"\x02\xff\xfe",
            )
        )
    pieces = [part[3] for part in parts]
    pieces[at] = changed
    if chance.random() < 0.1:
        chance.shuffle(pieces)
    return b"".join(pieces)


def _nested(number: int, depth: int) -> Iterator[bytes]:
    inner = b""
    for _ in range(depth):
        inner = _varint(number << 3 | 2) + _varint(len(inner)) + inner
    yield inner


def _split(body: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """(number, wire type, content, all of it) of each field. Raises ValueError where that isn't how the bytes read."""
    place = 0
    while place < len(body):
        start = place
        tag, place = _read_varint(body, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            _, end = _read_varint(body, place)
        elif kind in (1, 5):
            end = place + (8 if kind == 1 else 4)
        elif kind == 2:
            length, place = _read_varint(body, place)
            end = place + length
        else:
            raise ValueError("a group")
        if not number or end > len(body):
            raise ValueError("past the end")
        yield number, kind, body[place:end], body[start:end]
        place = end


def _read_varint(body: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(body) and shift < 64:
        value |= (body[place] & 0x7F) << shift
        place += 1
        if not body[place - 1] & 0x80:
            return value, place
        shift += 7
    raise ValueError("no varint")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


_JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 5e-324, float("nan"), float("inf"), 2**31, 2**53 + 1, -(2**63), 2**63, 2**64, 10**400,
    "", " ", "x", "0", "nan", "\0", "a\0b", "\ud800", "\U0001f600", "../..", "tinker://", "tinker://a/weights/../..", "x" * 100_000, "%s%n",
    [], [[]], [None], [1, "a"], [2**70], [-1], [1e400], {}, {"": {}}, {"type": "x"}, {"a": [{"b": []}]},
)  # fmt: skip


def spoil_json(body: dict[str, Any], chance: random.Random) -> bytes:
    """A value replaced, dropped, wrapped, doubled or added at some place; or the text itself spoilt."""
    kind = chance.random()
    if kind < 0.15:
        return spoil_bytes(_text(body), chance)
    if kind < 0.2:
        opening = chance.choice(("[", '{"a":', '{"prompt":{"chunks":['))
        return (opening * chance.choice((50, _DEEP, 100_000))).encode()
    spoilt = json.loads(json.dumps(body))
    for _ in range(chance.choice((1, 1, 1, 2))):
        holder, key = chance.choice(list(_places(spoilt)))
        how = chance.randrange(8)
        if how == 0:
            del holder[key]
            if not spoilt:
                break
        elif how == 1:
            holder[key] = [holder[key]] if chance.random() < 0.5 else {"value": holder[key]}
        elif how == 2 and isinstance(holder[key], list):
            holder[key] = holder[key] * chance.choice((2, 50, 3000))
        elif how == 3:
            (holder.__setitem__ if isinstance(holder, dict) else holder.insert)(
                "x" if isinstance(holder, dict) else 0, copy.deepcopy(chance.choice(_JUNK))
            )
        else:
            holder[key] = copy.deepcopy(chance.choice(_JUNK))
    return _text(spoilt)


def _text(value: Any) -> bytes:
    return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])
