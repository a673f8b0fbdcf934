"""Thinker's engine: everything that trains, without a screen.

The map: `engine.py` is the front door (Engine); `recipe.py` says all there is to say of a run;
`jobs` runs recipes in background threads; `training` holds the methods; `endpoints` know what answers
the Tinker API; `server` is our own answer to it; `data`, `rendering`, `evaluation`, `models`, `store`
and `knowledge` do what their names say. Nothing here imports streamlit.

The exported names load on first use, so that the launcher can read `engine.platforms` before anything is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.engine import Engine as Engine
    from engine.errors import EngineError as EngineError
    from engine.recipe import Recipe as Recipe

__all__ = ["Engine", "EngineError", "Recipe"]
__version__ = "0.1.0"

_HOMES = {"Engine": "engine.engine", "EngineError": "engine.errors", "Recipe": "engine.recipe"}


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'engine' has no attribute {name!r}")
