"""What a person chose or has seen, kept in the store: one list of names, each with its type and default. Knows no screen."""

from __future__ import annotations

from typing import Any

from engine.errors import NotFound, RecipeError
from engine.store import Store

DEFAULTS: dict[str, Any] = {
    "tour": "new",
    "tour_step": 0,
    "default_base_model": "",
    "default_batch_size": 0,
    "default_max_length": 0,
}
"""tour: new (never asked), on, skipped, done. tour_step: where in the tour the person is. default_...: what new trainings start from,
nothing for what is recommended; set by `engine.defaults`."""

_CHOICES: dict[str, tuple[Any, ...]] = {"tour": ("new", "on", "skipped", "done")}


class Settings:
    """One person's settings."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def get(self, setting: str) -> Any:
        """What was chosen, else the default, also where what is stored no longer fits. Raises NotFound for an unknown name."""
        _known(setting)
        found = self._store.setting(self._owner, setting)
        return found if _fits(setting, found) else DEFAULTS[setting]

    def set(self, setting: str, value: Any) -> None:
        """Raises NotFound for an unknown name, RecipeError for a value that doesn't fit."""
        _known(setting)
        if not _fits(setting, value):
            allowed = ", ".join(map(str, _CHOICES.get(setting, (type(DEFAULTS[setting]).__name__,))))
            raise RecipeError(f"{value!r} doesn't fit the setting {setting}", f"Use one of: {allowed}.", where=f"setting {setting}")
        self._store.set_setting(self._owner, setting, value)

    def reset(self, setting: str) -> None:
        """Back to the default. Raises NotFound for an unknown name."""
        _known(setting)
        self._store.set_setting(self._owner, setting, None)


def _known(setting: str) -> None:
    if setting not in DEFAULTS:
        raise NotFound(f"there is no setting called {setting!r}", f"There are: {', '.join(DEFAULTS)}.")


def _fits(setting: str, value: Any) -> bool:
    return type(value) is type(DEFAULTS[setting]) and value in _CHOICES.get(setting, (value,))
