"""Assistant: goals and questions in plain English; `?talk=` names a conversation."""

from __future__ import annotations

import streamlit as st

from app.components import assistant

assistant.show(st.query_params.get("talk", ""))
