"""The one table of pages, and the links between them. Pages are named by absolute path: see `choose`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import streamlit as st
from streamlit.errors import StreamlitAPIException

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


HOME = Entry("home.py", "Home", "home")
TRAINING = Entry("training.py", "Training", "training")
MODELS = Entry("models.py", "Models", "models")
PLAYGROUND = Entry("playground.py", "Playground", "playground")
WIZARD = Entry("wizard.py", "Wizard", "wizard")
ANALYTICS = Entry("analytics.py", "Analytics", "analytics")
DATASETS = Entry("datasets.py", "Datasets", "datasets")
SETTINGS = Entry("settings.py", "Settings", "settings")
PAGES = (HOME, WIZARD, TRAINING, DATASETS, MODELS, PLAYGROUND, ANALYTICS, SETTINGS)
FIRST = HOME


def choose():
    """The page that the address names; the bare address leads on to the first page, so that every page has one address."""
    start = st.Page(_start, title="Thinker", url_path="start", default=True, visibility="hidden")
    pages = [st.Page(entry.path, title=entry.title, url_path=entry.url_path) for entry in PAGES]
    chosen = st.navigation([start, *pages], position="sidebar" if len(pages) > 1 else "hidden")
    if st.query_params:
        # A page link that was followed hands its query to the script, but doesn't write it into the browser's address: without this the
        # next rerun or F5 would lose it. Where the address has it already, the browser does nothing.
        for name in list(st.query_params):
            # What is bound to a widget can't be set here; any other brings the whole query with it.
            with suppress(StreamlitAPIException):
                st.query_params[name] = st.query_params.get_all(name)
                break
    return chosen


def entry(url_path: str) -> Entry:
    """The page with that path in the address."""
    return next(found for found in PAGES if found.url_path == url_path)


def link(entry: Entry, label: str) -> None:
    """To a page as it is when nothing is chosen on it."""
    st.page_link(entry.path, label=label)


def link_to_run(job_id: str, label: str) -> None:
    """A real link: it can be copied, and opened in another tab."""
    st.page_link(TRAINING.path, label=label, query_params={"job": job_id})


def link_to_model(model_id: str, label: str) -> None:
    """The page of a tuned model."""
    st.page_link(MODELS.path, label=label, query_params={"model": model_id})


def link_to_chat(ref: str, label: str, *, beside: str = "", icon: str | None = ":material/chat:") -> None:
    """A new chat with a model: its id, `base:NAME`, or `JOB@STEP` for a checkpoint; `beside` answers the same prompts."""
    query = {"model": ref} | ({"with": beside} if beside else {})
    st.page_link(PLAYGROUND.path, label=label, icon=icon, query_params=query)


def link_to_conversation(conversation_id: str, label: str) -> None:
    """A chat that is kept."""
    st.page_link(PLAYGROUND.path, label=label, query_params={"chat": conversation_id})


def go(entry: Entry, **query: str) -> None:
    """Leaves for another page at once."""
    st.switch_page(entry.path, query_params=query)


def link_to_comparison(job_ids: Sequence[str], label: str) -> None:
    """These runs over each other, on the Analytics page."""
    st.page_link(ANALYTICS.path, label=label, icon=":material/compare_arrows:", query_params={"runs": ",".join(job_ids)})


def link_to_dataset(dataset_id: str, label: str) -> None:
    """The page of a data set."""
    st.page_link(DATASETS.path, label=label, query_params={"set": dataset_id})


def link_to_training_on(dataset_id: str, label: str) -> None:
    """To the wizard, with a data set chosen."""
    st.page_link(WIZARD.path, label=label, icon=":material/play_arrow:", query_params={"data": dataset_id})


def _start() -> None:
    st.switch_page(FIRST.path, query_params=dict(st.query_params))
