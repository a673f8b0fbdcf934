"""Datasets: the library, or the data set that `?set=` names."""

from __future__ import annotations

import streamlit as st

from app import navigation
from app.components import dataset, datasets

wanted = st.query_params.get("set")
if wanted is None:
    datasets.show()
else:
    navigation.link(navigation.DATASETS, "← All data sets")
    dataset.show(wanted)
