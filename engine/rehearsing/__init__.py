"""Tries a recipe out small before it costs hours or money: all stages for a few updates, by the same loop, on a small model here.

    report.py   what was looked at, one by one, and what came of each
    looks.py    what can be told without training: the place, the model, the rows as the recipe's own model is shown them
    asks.py     the models that the run will ask: judges, reward models, teachers
    scores.py   what the reward says of right answers and of nonsense
    shrink.py   the recipe and its rows made small
    trial.py    the small run: saves, is paused and goes on in every stage, is evaluated; and what is cleared away after it
    host.py     all of it in order, in a process of its own

Nothing of it stands in the list of runs or among the models, and its files are gone when it ends.
"""
