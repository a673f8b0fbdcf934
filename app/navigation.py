"""The one table of pages, and the links between them. Pages are named by absolute path: see `choose`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

_FOLDER = Path(__file__).resolve().parents[1] / "pages"


@dataclass(frozen=True)
class Entry:
    """One page: its file in pages/, its title and the path in the address."""

    file: str
    title: str
    url_path: str

    @property
    def path(self) -> str:
        """Absolute: a relative one would be looked for beside the entrypoint."""
        return str(_FOLDER / self.file)


TRAINING = Entry("training.py", "Training", "training")
ANALYTICS = Entry("analytics.py", "Analytics", "analytics")
PAGES = (TRAINING, ANALYTICS)
FIRST = TRAINING


def choose():
    """The page that the address names; the bare address leads on to the first page, so that every page has one address."""
    start = st.Page(_start, title="Thinker", url_path="start", default=True, visibility="hidden")
    pages = [st.Page(entry.path, title=entry.title, url_path=entry.url_path) for entry in PAGES]
    return st.navigation([start, *pages], position="sidebar" if len(pages) > 1 else "hidden")


def link(entry: Entry, label: str) -> None:
    """To a page as it is when nothing is chosen on it."""
    st.page_link(entry.path, label=label)


def link_to_run(job_id: str, label: str) -> None:
    """A real link: it can be copied, and opened in another tab."""
    st.page_link(TRAINING.path, label=label, query_params={"job": job_id})


def link_to_comparison(job_ids: Sequence[str], label: str) -> None:
    """These runs over each other, on the Analytics page."""
    st.page_link(ANALYTICS.path, label=label, icon=":material/compare_arrows:", query_params={"runs": ",".join(job_ids)})


def link_to_chat(model_id: str, label: str) -> bool:
    """To a chat with the model, where there is a page for it. -> whether there is."""
    page = next((entry for entry in PAGES if entry.url_path == "playground"), None)
    if page is not None:
        st.page_link(page.path, label=label, icon=":material/chat:", query_params={"model": model_id})
    return page is not None


def _start() -> None:
    st.switch_page(FIRST.path, query_params=dict(st.query_params))
