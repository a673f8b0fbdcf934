"""What tokens cost where: the price list that ships, and the person's own prices before it. Pure arithmetic besides reading two files.

Dollars are US dollars, prices are for a million tokens of each kind: prefill (read), sample (written), train (learned from).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import yaml

from engine import knowledge, paths
from engine.errors import RecipeError, StorageError

KINDS = ("prefill", "sample", "train")
FILE = "prices.yaml"
OWN = "your own price"
_MILLION = 1e6
_HIGHEST = 100_000.0


@dataclass(frozen=True)
class Price:
    """One model's prices at one endpoint. `model` is its name in the list, `as_of` the day of that list (empty for one's own)."""

    endpoint: str
    model: str
    prefill: float
    sample: float
    train: float
    as_of: str = ""
    source: str = ""
    note: str = ""

    @property
    def free(self) -> bool:
        """Whether nothing is ever charged."""
        return not (self.prefill or self.sample or self.train)

    def dollars(self, counted: Mapping[str, float]) -> float:
        """What so many tokens of each kind come to."""
        return sum(counted.get(kind, 0) * getattr(self, kind) for kind in KINDS) / _MILLION

    @property
    def told(self) -> str:
        """Where the price is from, in words."""
        if self.free:
            return self.note
        each = f"${self.prefill:g} read, ${self.sample:g} written, ${self.train:g} learned from, a million tokens"
        origin = f"{self.source}, {self.as_of}" if self.as_of else self.source
        return f"{each} ({origin})"


def find(endpoint: str, base_model: str) -> Price | None:
    """The price there; None where it isn't known. The person's own goes first, by the model's whole name, then for all (*)."""
    own = _own().get(endpoint, {})
    for name in (base_model, "*"):
        if name in own:
            return Price(endpoint, name, **own[name], source=OWN)
    shipped = _shipped()
    about = shipped["endpoints"].get(endpoint)
    if about is None:
        return None
    origin = {"as_of": str(shipped["as_of"]), "source": shipped["source"], "note": about.get("note", "")}
    if about.get("free"):
        return Price(endpoint, base_model, 0.0, 0.0, 0.0, **origin)
    for name, entry in about.get("models", {}).items():
        if any(fnmatchcase(base_model.lower(), f"{pattern}".lower()) for pattern in entry["match"]):
            return Price(endpoint, name, *(float(entry[kind]) for kind in KINDS), **origin)
    return None


def table() -> list[Price]:
    """Every price that is known: the person's own, then the list that ships, less what is free."""
    shipped = _shipped()
    own = [Price(endpoint, name, **each, source=OWN) for endpoint, names in _own().items() for name, each in names.items()]
    origin = {"as_of": str(shipped["as_of"]), "source": shipped["source"]}
    listed = [
        Price(endpoint, name, *(float(entry[kind]) for kind in KINDS), **origin, note=about.get("note", ""))
        for endpoint, about in shipped["endpoints"].items()
        for name, entry in about.get("models", {}).items()
    ]
    return [*own, *listed]


def change(endpoint: str, model: str, prices: Mapping[str, float] | None) -> None:
    """Keeps the person's own price of a model (* for all at the endpoint) in the data directory; None goes back to the list's.

    Raises RecipeError for what is no price, StorageError.
    """
    own = _own()
    model, endpoint = model.strip(), endpoint.strip()
    if not model or not endpoint:
        raise RecipeError("a price belongs to an endpoint and a model", "Name both; * stands for all models there.", where="prices")
    if prices is None:
        own.get(endpoint, {}).pop(model, None)
    else:
        own.setdefault(endpoint, {})[model] = {kind: _amount(kind, prices.get(kind)) for kind in KINDS}
    _write({name: models for name, models in own.items() if models})


@cache
def _shipped() -> dict[str, Any]:
    return knowledge.prices()


def _amount(kind: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _HIGHEST:
        raise RecipeError(
            f"{value!r} is no price for {kind} tokens", f"Give dollars a million tokens, from 0 to {_HIGHEST:,.0f}.", where=f"prices {kind}"
        )
    return float(value)


def _own() -> dict[str, dict[str, dict[str, float]]]:
    """{endpoint: {model: {prefill, sample, train}}} of the data directory. Raises RecipeError for a file that can't be read."""
    file = paths.home() / FILE
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"your own prices can't be read: {error}", f"Correct {FILE}, or delete it.", where=FILE) from error
    try:
        listed = found.get("endpoints", {})
        return {
            str(endpoint): {str(name): {kind: _amount(kind, entry.get(kind)) for kind in KINDS} for name, entry in about["models"].items()}
            for endpoint, about in listed.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        advice = f"In {FILE}: endpoints, below each its models, below each prefill, sample and train. Or delete it."
        raise RecipeError("your own prices aren't laid out as prices are", advice, where=FILE) from error


def _write(own: dict[str, Any]) -> None:
    file = paths.home() / FILE
    draft = file.with_name(f".{FILE}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    content = {"endpoints": {endpoint: {"models": models} for endpoint, models in own.items()}}
    try:
        draft.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        os.replace(draft, file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StorageError(f"your prices can't be kept: {error.strerror}", "Make room, then try again.", where=FILE) from error
