"""Amounts as people say them, alike on every screen. Knows no screen."""

from __future__ import annotations

import math


def duration(seconds: float) -> str:
    """0.4 s, 9 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def size(count: float) -> str:
    """512 bytes, 2.6 MB, 15 GB: thousands, as disks are sold."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.5 or unit == "TB":
            break
    return f"{count:.1f}".removesuffix(".0") + f" {unit}" if count < 9.95 else f"{count:.0f} {unit}"


def measure(value: float, unit: str = "") -> str:
    """A metric's value: a share as 97.5 %, anything else with the three figures that count."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "beyond measure"
    if unit == "share":
        return f"{100 * value:.1f}".removesuffix(".0") + " %"
    if value and abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def dollars(amount: float) -> str:
    """$0, under $0.01, $0.59, $7.26, $1,204: US dollars."""
    if amount <= 0:
        return "$0"
    if amount < 0.01:
        return "under $0.01"
    return f"${amount:,.2f}" if amount < 1000 else f"${amount:,.0f}"
