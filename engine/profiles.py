"""`engine.profiles`: named bundles of changes to the data, a system prompt and stop strings. Two ship; a person can keep their own.

A recipe names one (`profile: JSON only`); at the launch its content is written into the recipe, and the name gets a mark of that content
(`JSON only@1f2e3d4c`), so that the run stays what it was when the profile changes. What the recipe says itself comes first: a system
prompt of its own stays, stop strings and changes to the data are added to those of the profile.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine import data, guard, knowledge
from engine.data.dataset import stamp
from engine.data.transforms import each_changed, texts_of
from engine.errors import NotFound, RecipeError
from engine.library import Library
from engine.recipe import Recipe, Transform

if TYPE_CHECKING:
    from engine.store import Store

_KEPT = "profiles"  # the setting that holds a person's own
_MARK = re.compile(r"(.+)@([0-9a-f]{8})")
_MOST = 100


@dataclass(frozen=True)
class Profile:
    """One bundle. `own`: the person's, not one that ships."""

    name: str
    meaning: str = ""
    use_when: str = ""
    system_prompt: str = ""
    transforms: tuple[Transform, ...] = ()
    stop: tuple[str, ...] = ()
    own: bool = False

    @property
    def mark(self) -> str:
        """Changes with the content."""
        content = [self.system_prompt, [one.model_dump(mode="json") for one in self.transforms], list(self.stop)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "replace")).hexdigest()[:8]


@dataclass(frozen=True)
class Effect:
    """What a recipe's changes do to one row: [(what, text)] before and after; `left_out` says why it is left out."""

    row: int
    before: list[tuple[str, str]]
    after: list[tuple[str, str]]
    left_out: str = ""


@dataclass(frozen=True)
class Effects:
    """The first rows, and how many of all rows are left out."""

    rows: list[Effect]
    left_out: int
    total: int


class Profiles:
    """One owner's, and those that ship."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner
        self._known: dict[tuple, Effects] = {}

    def list(self) -> list[Profile]:
        """Those that ship first, then the person's own by name."""
        return [*_shipped().values(), *sorted(_own(self._store, self._owner).values(), key=lambda one: one.name.casefold())]

    def get(self, profile: str) -> Profile:
        """By name, with or without the mark. Raises NotFound."""
        return find(self._store, self._owner, name_of(profile))

    def kinds(self) -> dict[str, dict[str, Any]]:
        """What can be done to examples, by name: title, meaning, fields."""
        return knowledge.transforms()

    def save(
        self, name: str, *, transforms: Sequence[Any] = (), system_prompt: str = "", stop: Sequence[str] = (), meaning: str = ""
    ) -> Profile:
        """Keeps a profile of the person's own; one of the same name is replaced. Raises RecipeError, which says what can't be."""
        name = " ".join(name.split())
        if not name or len(name) > 80 or "@" in name:
            raise RecipeError("a profile needs a name of at most 80 characters, without @", "Give it another name.", where="profile")
        if name in _shipped():
            raise RecipeError(f"{name} is a profile that ships with Thinker", "Give yours another name.", where="profile")
        plain = [one.model_dump(mode="json") if isinstance(one, Transform) else one for one in transforms]
        checked = Recipe.make({"data": {"transforms": plain}, "system_prompt": system_prompt, "stop": list(stop)})
        if not (checked.data.transforms or checked.system_prompt or checked.stop):
            raise RecipeError(
                "this profile does nothing", "Give it a change to the data, a system prompt or a stop string.", where="profile"
            )
        kept = self._store.setting(self._owner, _KEPT) or {}
        if name not in kept and len(kept) >= _MOST:
            raise RecipeError(f"{_MOST} profiles are kept already", "Delete one that you don't need any more.", where="profile")
        values = checked.model_dump(mode="json")
        content = {"meaning": meaning.strip()[:500], "system_prompt": values["system_prompt"], "stop": values["stop"]}
        kept[name] = content | {"transforms": values["data"]["transforms"]}
        self._store.set_setting(self._owner, _KEPT, kept)
        return self.get(name)

    def delete(self, profile: str) -> None:
        """One of the person's own; runs launched with it keep its content. Raises NotFound, and RecipeError for one that ships."""
        name = name_of(profile)
        if name in _shipped():
            raise RecipeError(f"{name} ships with Thinker", "Only profiles of your own can be deleted.", where="profile")
        find(self._store, self._owner, name)
        kept = self._store.setting(self._owner, _KEPT) or {}
        kept.pop(name, None)
        self._store.set_setting(self._owner, _KEPT, kept or None)

    def effects(self, recipe: Recipe, count: int = 1) -> Effects:
        """What the recipe's profile and changes do to the first rows of its data; remembered while these stay as they are. Raises
        EngineError."""
        guard.recipe(self._owner, recipe)
        library = Library(self._store, self._owner)
        for part in (recipe.data, *recipe.data.mix):
            if part.dataset:
                library.usable(part.dataset)
        recipe = settle(self._store, self._owner, recipe)
        key = (stamp(recipe.data), recipe.data.model_dump_json(), recipe.system_prompt, recipe.method, recipe.seed, count)
        if key not in self._known:
            self._known = {key: self._effects(recipe, count)}
        return self._known[key]

    def _effects(self, recipe: Recipe, count: int) -> Effects:
        plain = recipe.merged({"profile": "", "system_prompt": "", "data": {"transforms": []}})
        raw = [example for example in data.load_data(plain, skills=False).train if example.kind == "task"]
        made = each_changed(raw, recipe.data.transforms)
        shown = []
        for example, found in list(zip(raw, made, strict=True))[:count]:
            if isinstance(found, data.Problem):
                shown.append(Effect(example.row, texts_of(example), [], found.message))
                continue
            told = [("system", recipe.system_prompt)] if recipe.system_prompt else []
            shown.append(Effect(example.row, texts_of(example), [*told, *texts_of(found)]))
        return Effects(shown, sum(isinstance(found, data.Problem) for found in made), len(raw))


def settle(store: Store, owner: str, recipe: Recipe) -> Recipe:
    """The recipe with its profile's content written into it. Raises NotFound."""
    if not recipe.profile or _MARK.fullmatch(recipe.profile):
        return recipe
    profile = find(store, owner, recipe.profile)
    transforms = [one.model_dump(mode="json") for one in (*profile.transforms, *recipe.data.transforms)]
    return recipe.merged(
        {
            "profile": f"{profile.name}@{profile.mark}",
            "data": {"transforms": transforms},
            "system_prompt": recipe.system_prompt or profile.system_prompt,
            "stop": list(dict.fromkeys((*profile.stop, *recipe.stop))),
        }
    )


def decided(before: Recipe, settled: Recipe) -> dict[str, dict[str, Any]]:
    """What the profile decided, by field: {value, reason, source}."""
    reason = {"reason": f"From the profile {name_of(settled.profile)}.", "source": "its content"}
    old, new = (recipe.model_dump(mode="json") for recipe in (before, settled))
    return {part: {"value": new[part], **reason} for part in ("system_prompt", "stop") if new[part] != old[part]}


def find(store: Store, owner: str, name: str) -> Profile:
    """One that ships or the owner's own. Raises NotFound."""
    found = {**_shipped(), **_own(store, owner)}
    if name not in found:
        raise NotFound(f"there is no profile called {name!r}", f"There are: {', '.join(found)}.", where="recipe profile")
    return found[name]


def name_of(profile: str) -> str:
    """Its name as people know it, without the mark."""
    marked = _MARK.fullmatch(profile)
    return marked[1] if marked else profile


def _shipped() -> dict[str, Profile]:
    return {name: _made(name, values, own=False) for name, values in knowledge.profiles().items()}


def _own(store: Store, owner: str) -> dict[str, Profile]:
    """What another version kept and this one can't read is passed over."""
    found = {}
    for name, values in (store.setting(owner, _KEPT) or {}).items():
        try:
            found[name] = _made(name, values, own=True)
        except (ValueError, TypeError, KeyError):
            continue
    return found


def _made(name: str, values: dict[str, Any], *, own: bool) -> Profile:
    transforms = tuple(Transform.model_validate(one) for one in values.get("transforms") or ())
    texts = {key: str(values.get(key) or "") for key in ("meaning", "use_when", "system_prompt")}
    return Profile(name, **texts, transforms=transforms, stop=tuple(values.get("stop") or ()), own=own)
