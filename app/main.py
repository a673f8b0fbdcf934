"""The dashboard's entrypoint: `streamlit run app/main.py`. Sets the frame, finds the page and runs it; knows no page's content."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from app import identity, navigation, services, shortcuts  # noqa: E402
from app.components import signing, tour_guide, trouble  # noqa: E402

st.set_page_config(page_title="Thinker", page_icon="💡", layout="wide")
st.logo(str(ROOT / "app" / "logo.svg"), size="small")
if identity.known():
    page = navigation.choose()
    signing.show_who()
    trouble.show_notices()
    with trouble.boundary():
        tour_guide.show(page.url_path)
    with trouble.boundary():
        page.run()
    shortcuts.show()
else:
    signing.show_gate()
services.settle()
