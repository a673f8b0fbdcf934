"""Who is here, said in the sidebar; and the door, where people sign in. Knows no page."""

from __future__ import annotations

from typing import Any

import streamlit as st
from streamlit import auth_util

from app import identity
from app.components import trouble, words


def show_gate() -> None:
    """In place of all pages, until somebody has signed in."""
    # Only so that an address that leads to a page still leads there afterwards.
    st.title("Thinker", anchor=False)
    st.markdown("Fine-tune language models and see proof that they got better. Sign in to see your own runs, data and models.")
    if not auth_util.is_authlib_installed():
        advice = "Whoever runs it installs the package Authlib (pip install Authlib) and starts it again."
        trouble.show_error({"message": "signing in isn't possible yet: a package is missing on this server", "next_step": advice})
        return
    if getattr(st.user, "is_logged_in", False):
        told = "your account came without an issuer and a subject, by which accounts are told apart"
        trouble.show_error({"message": told, "next_step": "Sign out and choose another account."})
        st.button("Sign out", key="sign-out", on_click=st.logout)
        return
    for provider, label in _providers().items():
        st.button(label, key=f"sign-in-{provider}", type="primary", icon=":material/login:", on_click=_sign_in, args=(provider,))


def show_who() -> None:
    """At the foot of the sidebar; nothing for the one person whose machine it is."""
    who = identity.who()
    if who.kind == "local":
        return
    with st.sidebar:
        if who.kind == "person":
            st.caption(f"Signed in as {words.literal(str(st.user.get('name') or st.user.get('email') or 'somebody'))}")
            st.button("Sign out", key="sign-out", icon=":material/logout:", on_click=st.logout)
        elif who.lasting:
            st.caption("You are a visitor here: what you make is yours alone, and this browser finds it again for 30 days.")
        else:
            st.caption("You are a visitor here: what you make is yours alone, and gone for you once this tab is closed or reloaded.")


def _sign_in(provider: str) -> None:
    st.login(provider or None)


def _providers() -> dict[str, str]:
    """{name for st.login: what the button says}: several by their own names, or the one that has none."""
    section: Any = auth_util.get_secrets_auth_section()
    named = [name for name, value in section.items() if hasattr(value, "items") and "client_id" in value]
    return {name: f"Sign in with {name.capitalize()}" for name in named} or {"": "Sign in"}
