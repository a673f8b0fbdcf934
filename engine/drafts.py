"""The one draft of a run that an owner is putting together: kept until it is launched or thrown away.

Holds choices, not a recipe: where it stands (`step`), what for (`goal`), and what the person changed in the recommended
values (`changes`), so that recommendations follow the data and the model as these change.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine import starts
from engine.recipe import Recipe

if TYPE_CHECKING:
    from engine.store import Store


@dataclass(frozen=True)
class Draft:
    """`step` counts from 0; `reached` is the furthest step so far. `token` is what its launch is known by, given when it is first kept."""

    goal: str = ""
    step: int = 0
    reached: int = 0
    expert: bool = False
    changes: dict[str, Any] = field(default_factory=dict)
    token: str = ""

    def data(self) -> dict[str, Any]:
        """What was chosen of the data part."""
        return dict(self.changes.get("data") or {})


class Drafts:
    """One owner's."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def get(self) -> Draft:
        """The draft, or an empty one. What an older version kept and this one doesn't know is left out."""
        kept = self._store.draft(self._owner) or {}
        known = {name: value for name, value in kept.items() if name in Draft.__dataclass_fields__}
        return Draft(**known)

    def save(self, draft: Draft) -> Draft:
        """Keeps it in place of what was kept. Raises RecipeError, which names the field, for a value that no recipe can have."""
        Recipe.make(draft.changes)
        draft = replace(draft, token=draft.token or f"draft:{secrets.token_hex(8)}")
        self._store.save_draft(asdict(draft), self._owner)
        return draft

    def update(self, **values: Any) -> Draft:
        """Changes some of it and keeps it; `reached` follows `step`."""
        draft = replace(self.get(), **values)
        return self.save(replace(draft, reached=max(draft.reached, draft.step)))

    def change(self, field: str, value: Any) -> Draft:
        """Sets one field of the recipe, such as training.batch_size; None goes back to what is recommended."""
        draft = self.get()
        part, _, leaf = field.rpartition(".")
        changes = {name: dict(inner) if isinstance(inner, dict) else inner for name, inner in draft.changes.items()}
        place = changes.setdefault(part, {}) if part else changes
        if value is None:
            place.pop(leaf, None)
        else:
            place[leaf] = value
        if part and not place:
            del changes[part]
        return self.save(replace(draft, changes=changes))

    def start_from(self, ref: str) -> Draft:
        """What the run goes on from; empty for a bare base model. What follows of the choice before is forgotten. Raises NotFound."""
        if ref:
            starts.find(self._store, self._owner, ref)
        draft = self.get()
        kept = {name: value for name, value in draft.changes.items() if name not in ("start", "base_model", "full", "lora", "renderer")}
        return self.save(replace(draft, changes=kept | ({"start": {"checkpoint": ref}} if ref else {})))

    def discard(self, token: str = "") -> None:
        """Throws it away; with a token, only if it is still that one."""
        if not token or self.get().token == token:
            self._store.delete_draft(self._owner)
