"""Settings: where things are kept, what new trainings start from, the tour, how it looks, what to send when asking for help."""

from __future__ import annotations

from app.components import settings

settings.show()
