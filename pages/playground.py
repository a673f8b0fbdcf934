"""Playground: a chat with any model, or the same prompt to two of them; `?model=`, `?with=` and `?chat=` name them."""

from __future__ import annotations

import streamlit as st

from app.components import chat

chat.show(st.query_params.get("model", ""), st.query_params.get("with", ""), st.query_params.get("chat", ""))
