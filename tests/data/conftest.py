"""Data files, written as people (and Excel) write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write('x.csv', text or bytes) or write('x.jsonl', rows=[...]) -> the file's path."""

    def write(name: str, content: str | bytes = "", *, rows: list[Any] | None = None) -> Path:
        if rows is not None:
            content = "".join(json.dumps(row) + "\n" for row in rows)
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write
