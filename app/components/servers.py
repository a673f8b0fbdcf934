"""Servers by URL, and what tokens cost: two parts of the settings. A key that was typed is shown nowhere and kept in no field."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import services
from app.components import trouble, words
from engine import EngineError
from engine.knowledge.pricing import OWN

if TYPE_CHECKING:
    from engine.remotes import Server


def show() -> None:
    """Those that were named, and a form for one more."""
    engine = services.engine()
    st.markdown(
        "Any server that speaks Tinker's API can train: another Thinker's (`python thinker.py serve`), a cluster, a rented machine. "
        "Name it here, and the Wizard offers it. Your examples are sent there."
    )
    for server in engine.remotes.all():
        with st.container(border=True):
            _one(engine, server)
    with st.expander("Name a server"), st.form("server-form", border=False):
        st.text_input("Name", key="server-name", max_chars=40, placeholder="lab", help="Small letters, digits and hyphens.")
        st.text_input("Address", key="server-url", placeholder="https://host:8000", help="What comes before /api/v1.")
        st.checkbox("It asks for a key", value=True, key="server-needs-key")
        st.text_input("Key", key="server-key", type="password", autocomplete="off", placeholder="tml-…")
        st.checkbox("Remember the key on this machine", key="server-store", help="In a file of Thinker's folder that only you can read.")
        st.form_submit_button("Use this server", icon=":material/add_link:", on_click=_add)


def _one(engine: Any, server: Server) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{words.literal(server.name)}** {words.code(server.url)}", width="content")
        if server.key is not None:
            st.badge("key is there" if server.key else "no key yet", color="green" if server.key else "gray", icon=":material/key:")
    if server.in_the_clear:
        st.caption(":orange[What is sent there, the key too, can be read on the way: use an https address, or a tunnel.]")
    if server.seen_at:
        offered = ", ".join(map(words.literal, server.models[:12])) or "none"
        lines = [f"- **Models to train:** {offered}"]
        for ability in server.abilities:
            mark = ":gray[not known]" if ability.has is None else ":green[yes]" if ability.has else ":orange[no]"
            lines.append(f"- **{ability.title}:** {mark} {words.literal(ability.told)}")
        st.markdown("\n".join(lines))
        st.caption(f"As it was {words.ago(time.time() - server.seen_at)}.")
    with st.container(horizontal=True):
        name = server.name
        look = "Asks it for its models, its list of checkpoints and its chat. Costs nothing."
        if st.button("Look at it", key=f"server-look-{name}", icon=":material/network_check:", help=look):
            _ask(lambda: engine.remotes.probe(name), "Asking")
        if any(ability.has is None for ability in server.abilities):
            tried = "Makes a small adapter there and sends a few dozen tokens, which may cost a little and take minutes."
            if st.button("Try out the rest", key=f"server-try-{name}", icon=":material/experiment:", help=tried):
                _ask(lambda: engine.remotes.try_out(name), "Trying it out")
        with st.popover("Forget", icon=":material/delete:"):
            st.markdown("Forget this server and its key? Runs and models that came of it stay, and can't be used without it.")
            st.button("Forget it", key=f"server-forget-{name}", on_click=_forget, args=(name,))


def _ask(action: Any, doing: str) -> None:
    try:
        with st.spinner(doing):
            action()
    except EngineError as error:
        trouble.show_error(error.to_dict())
    else:
        st.rerun()


def _add() -> None:
    name, url, key = (st.session_state[f"server-{field}"] for field in ("name", "url", "key"))
    needs, store = (bool(st.session_state[f"server-{field}"]) for field in ("needs-key", "store"))
    # The field holds it no longer than it takes to hand it over.
    st.session_state["server-key"] = ""
    told = f"{name.strip()} is named; look at what it can do"
    trouble.attempt(lambda: services.engine().remotes.add(name, url, needs_key=needs, key=key, store_key=store), told)


def _forget(name: str) -> None:
    trouble.attempt(lambda: services.engine().remotes.forget(name), f"{name} is forgotten")


def prices() -> None:
    """The list, one's own prices first; a form for another."""
    engine = services.engine()
    with trouble.boundary():
        known = engine.spending.table()
        listed = next((price for price in known if price.as_of), None)
        if listed:
            st.markdown(
                f"US dollars a million tokens, from {words.literal(listed.source)} as of `{listed.as_of}`. Your bill is what counts."
            )
        rows = [
            {
                "place": p.endpoint,
                "model": p.model,
                "read": p.prefill,
                "written": p.sample,
                "learned from": p.train,
                "from": p.as_of or p.source,
            }
            for p in known
        ]
        st.dataframe(rows, hide_index=True, height=38 + 36 * min(len(rows), 10), alt="Prices by place and model")
        if engine.policy.shared:
            return
        with st.expander("Another price"), st.form("price-form", border=False):
            places = engine.spending.places()
            st.selectbox("Place", places, index=None, placeholder="Choose one", key="price-endpoint")
            st.text_input("Model, as it is listed there; * for all", "*", key="price-model", max_chars=200)
            for kind, label in (("prefill", "Read (prefill)"), ("sample", "Written (sample)"), ("train", "Learned from (train)")):
                st.number_input(label, min_value=0.0, value=0.0, step=0.1, format="%.4f", key=f"price-{kind}")
            st.form_submit_button("Use this price", icon=":material/payments:", on_click=_price)
        for own in (price for price in known if price.source == OWN):
            label = f"Forget your price of {own.model} at {own.endpoint}"
            st.button(words.literal(label), key=f"price-forget-{own.endpoint}-{own.model}", type="tertiary", icon=":material/undo:",
                      on_click=_forget_price, args=(own.endpoint, own.model))  # fmt: skip


def _price() -> None:
    given = {kind: st.session_state[f"price-{kind}"] for kind in ("prefill", "sample", "train")}
    endpoint, model = st.session_state["price-endpoint"] or "", st.session_state["price-model"]
    trouble.attempt(lambda: services.engine().spending.change(endpoint, model, given), "The price is kept")


def _forget_price(endpoint: str, model: str) -> None:
    trouble.attempt(lambda: services.engine().spending.change(endpoint, model, None), "The list's price holds again")
