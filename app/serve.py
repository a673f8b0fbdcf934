"""The dashboard with its server part: `streamlit run app/serve.py`. Around `main.py` it puts what only a server can do: cookies that
tell visitors apart. Knows no page.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

from app import identity, visitors  # noqa: E402

app = st.App(str(ROOT / "app" / "main.py"), middleware=[Middleware(visitors.Visitors, asked=identity.asks_as_visitor)])
