"""The tour on the screen: a callout at the top of the page that a stop is about, and a way back to it on any other."""

from __future__ import annotations

import streamlit as st

from app import navigation, services, tour


def show(page: str) -> None:
    """`page` is the path in the address of the page that follows."""
    settings = services.engine().settings
    if not tour.is_on(settings):
        return
    stop, number, total = tour.here(settings), tour.number(settings), len(tour.STOPS)
    with st.container(border=True, key="tour"):
        at = f":blue[:material/explore:] **Tour, step {number + 1} of {total}: {stop.title}**"
        if page != stop.page:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(at, width="content")
                if st.button("Go on there", key="tour-there", type="tertiary", icon=":material/arrow_forward:"):
                    navigation.go(navigation.entry(stop.page))
                st.button("End the tour", key="tour-skip", type="tertiary", on_click=tour.skip, args=(settings,))
            return
        st.markdown(f"{at}  \n{stop.text}")
        with st.container(horizontal=True, vertical_alignment="center"):
            if number and st.button("Back", key="tour-back", icon=":material/arrow_back:"):
                _go(-1)
            if number + 1 < total:
                if st.button("Next", key="tour-next", type="primary", icon=":material/arrow_forward:"):
                    _go(1)
                st.button("Skip the tour", key="tour-skip", type="tertiary", on_click=tour.skip, args=(settings,))
            else:
                st.button("Finish", key="tour-finish", icon=":material/check:", on_click=tour.move, args=(settings, 1))


def _go(by: int) -> None:
    settings = services.engine().settings
    tour.move(settings, by)
    navigation.go(navigation.entry(tour.here(settings).page))
