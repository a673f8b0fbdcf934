"""Training: all runs, or the one that `?job=` names."""

from __future__ import annotations

import streamlit as st

from app.components import job, runs

wanted = st.query_params.get("job")
if wanted is None:
    runs.show()
else:
    job.show(wanted)
