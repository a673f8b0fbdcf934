"""Every error that reaches a person, in one tree.

    EngineError
    ├── DataError (ValueError)          the data set: which file, row and field
    ├── RecipeError (ValueError)        a recipe that can't be run as it stands
    ├── NotFound (LookupError)          no job, model or data set of that name
    ├── StateError (RuntimeError)       not possible in the job's present state
    ├── NotAllowed (PermissionError)    not for this person on this machine
    ├── KeyNeeded (PermissionError)     a key is missing, or was refused
    ├── PaymentNeeded (PermissionError) whoever trains asks for money first
    ├── BudgetSpent (RuntimeError)      a run has come to its own limit
    ├── EndpointError (ConnectionError) whatever trains or samples can't be reached or refused
    ├── ModelError (ValueError)         a base model that can't be loaded or rendered
    └── StorageError (OSError)          the disk or the database

Each says what happened, where, and what to do next. Knows nothing of how it will be shown.
"""

from __future__ import annotations

from typing import Any


class EngineError(Exception):
    """What happened (`message`), what to do (`next_step`) and, where known, the place (`where`)."""

    def __init__(self, message: str, next_step: str = "", *, where: str = ""):
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.where = where

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        if not self.next_step:
            return f"{place}{self.message}"
        stop = "" if self.message.endswith((".", "!", "?", ":")) else "."
        return f"{place}{self.message}{stop} {self.next_step}"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, for the store and `--json`."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "next_step": self.next_step,
            "where": self.where,
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> EngineError:
        """The error that `to_dict` wrote, of the same class where it still exists."""
        kinds = {cls.__name__: cls for cls in [EngineError, *EngineError.__subclasses__()]}
        cls = kinds.get(data.get("kind", ""), EngineError)
        return cls(data.get("message", ""), data.get("next_step", ""), where=data.get("where", ""))


class DataError(EngineError, ValueError):
    """Something in a data set; `where` names file, line or row, and field."""


class RecipeError(EngineError, ValueError):
    """A recipe that can't be run as it stands; `where` names the field."""


class NotFound(EngineError, LookupError):
    """No job, model or data set of that name (or it belongs to somebody else)."""


class StateError(EngineError, RuntimeError):
    """The thing asked for isn't possible in the job's present state."""


class NotAllowed(EngineError, PermissionError):
    """Something that this person may not do on this machine; it would be fine on their own."""


class KeyNeeded(EngineError, PermissionError):
    """What was asked for needs a key that isn't there, or that was refused: give one and go on."""


class PaymentNeeded(EngineError, PermissionError):
    """The account at the endpoint has no billing, or none left: nothing goes on until that is seen to."""


class BudgetSpent(EngineError, RuntimeError):
    """A run would go past what it may cost; what it learned is saved, and with a higher cap it goes on."""


class EndpointError(EngineError, ConnectionError):
    """What trains or samples can't be reached, or refused the request."""


class EndpointLost(EndpointError):
    """The endpoint died or restarted under a running job: rebuild the client, resume from a checkpoint."""


class ModelError(EngineError, ValueError):
    """A base model that can't be found, loaded or rendered for."""


class StorageError(EngineError, OSError):
    """The disk or the database refused; nothing that was saved before is lost."""
