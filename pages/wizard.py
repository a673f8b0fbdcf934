"""Wizard: a run in five steps, or the expert form; `?job=` shows a run's start; `?data=` and `?start=` begin with a data set or a model."""

from __future__ import annotations

import streamlit as st

from app import services
from app.components import expert, trouble
from app.components.wizard import configure, data, frame, goal, launch, place

started = st.query_params.get("job")
if started:
    launch.show_started(started)
else:
    if brought := st.query_params.pop("data", None):
        data.bring(brought)
        trouble.show_notices()
    if start := st.query_params.pop("start", None):
        configure.bring(start)
        trouble.show_notices()
    draft = services.engine().drafts.get()
    frame.head(draft)
    if draft.expert:
        expert.show(draft)
    else:
        (goal.show, data.show, place.show, configure.show, launch.show)[draft.step](draft)
