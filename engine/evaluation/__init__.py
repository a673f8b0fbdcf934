"""Measuring what a model can do, before and after."""
