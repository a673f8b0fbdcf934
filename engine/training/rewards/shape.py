"""The shape of answers, whatever they say: JSON that fits a schema, length within limits."""

from __future__ import annotations

import json
import re
from typing import Any

import regex
from jsonschema import Draft202012Validator, ValidationError, validators
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

from engine.errors import RecipeError
from engine.recipe.methods import RewardPart
from engine.training.rewards import Grade, Plain, Rollout, Tools

_FENCE = re.compile(r"```[ \t]*(?:json[c5]?)?[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL | re.IGNORECASE)
_MOST_STARTS = 200
_SECONDS = 1.0


class JsonSchema(Plain):
    """1 where the answer holds JSON that fits the schema: the whole answer, what stands in a code fence, or the first object or list."""

    def __init__(self, part: RewardPart, tools: Tools | None):
        super().__init__(part, tools)
        try:
            Draft202012Validator.check_schema(part.form)
        except SchemaError as error:
            place = "/".join(map(str, error.absolute_path))
            raise RecipeError(f"this is no JSON schema: {error.message}", f"Correct {place or 'it'}.", where="form") from error
        kind = validators.extend(Draft202012Validator, {"pattern": _pattern})
        # An empty registry, so that no $ref is ever fetched from anywhere.
        self._validator = kind(part.form, registry=Registry(), format_checker=Draft202012Validator.FORMAT_CHECKER)

    def one(self, rollout: Rollout) -> Grade:
        found = find_json(rollout.answer)
        if found is None:
            return Grade(0.0, "holds no JSON")
        try:
            wrong = next(self._validator.iter_errors(found[0]), None)
        except (Unresolvable, RecursionError, TimeoutError) as error:
            return Grade(0.0, f"the schema can't be held against it: {type(error).__name__}: {error}"[:300], failed=True)
        if wrong is None:
            return Grade(1.0)
        place = "/".join(map(str, wrong.absolute_path))
        return Grade(0.0, f"{place or 'JSON'}: {wrong.message}"[:300])


class Length(Plain):
    """1 within the limits; outside it falls in a straight line, to 0 at nothing and at twice the longest."""

    def one(self, rollout: Rollout) -> Grade:
        unit, answer = self.part.unit, rollout.answer.strip()
        count = {"characters": len(answer), "words": len(answer.split()), "tokens": rollout.tokens}[unit]
        shortest, longest = self.part.shortest, self.part.longest
        if shortest is not None and count < shortest:
            return Grade(count / shortest, f"{count:,} {unit}, at least {shortest:,} wanted")
        if longest is not None and count > longest:
            return Grade(max(0.0, 1 - (count - longest) / longest) if longest else 0.0, f"{count:,} {unit}, at most {longest:,} wanted")
        return Grade(1.0)


def find_json(text: str) -> tuple[Any] | None:
    """The JSON in an answer, in a tuple (for it may be null): the whole, a fence's, or the first object or list in it."""
    for piece in (text, *_FENCE.findall(text)):
        try:
            return (json.loads(piece),)
        except (ValueError, RecursionError):
            continue
    reader = json.JSONDecoder()
    starts = [match.start() for match in re.finditer(r"[{\[]", text)][:_MOST_STARTS]
    for start in starts:
        try:
            return (reader.raw_decode(text, start)[0],)
        except (ValueError, RecursionError):
            continue
    return None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Any:
    if validator.is_type(instance, "string") and not regex.search(pattern, instance, timeout=_SECONDS):
        yield ValidationError(f"{instance!r} doesn't fit {pattern!r}")
