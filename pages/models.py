"""Models: all that there are, or the one that `?model=` names."""

from __future__ import annotations

import streamlit as st

from app import navigation
from app.components import model, models

wanted = st.query_params.get("model")
if wanted is None:
    models.show()
else:
    navigation.link(navigation.MODELS, "← All models")
    model.show(wanted)
