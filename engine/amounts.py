"""Amounts as people say them, alike on every screen. Knows no screen."""

from __future__ import annotations


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


def dollars(amount: float) -> str:
    """$0, under $0.01, $0.59, $7.26, $1,204: US dollars."""
    if amount <= 0:
        return "$0"
    if amount < 0.01:
        return "under $0.01"
    return f"${amount:,.2f}" if amount < 1000 else f"${amount:,.0f}"
