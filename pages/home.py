"""Home: what runs, what came of it, what to do next; a welcome at the first visit."""

from __future__ import annotations

from app.components import home

home.show()
