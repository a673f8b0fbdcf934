"""Analytics: all runs with their key figures, and those that `?runs=` names over each other."""

from __future__ import annotations

from app.components import analytics

analytics.show()
