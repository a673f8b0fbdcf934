"""The areas of the Engine: one small facade for each, made when it is first asked for. Knows no area's business."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from engine.defaults import Defaults
from engine.drafts import Drafts
from engine.keeping import Keeping
from engine.keyring import Keyring
from engine.library import Library
from engine.next_steps import NextSteps
from engine.planning import Planner
from engine.presets import Presets
from engine.profiles import Profiles
from engine.rehearsals import Rehearsals
from engine.remotes import Remotes
from engine.runs import Runs
from engine.settings import Settings
from engine.spending import Spending
from engine.staging import Stages
from engine.store import Store
from engine.stored import Stored
from engine.travel import Travel
from engine.upkeep import Upkeep

if TYPE_CHECKING:
    from engine.assistant import Assistant
    from engine.diagnosis import Diagnoser
    from engine.judges import Judges
    from engine.playground import Playground
    from engine.ratings import Ratings
    from engine.registry import Registry
    from engine.rewards import Rewards
    from engine.teaching import Teaching


class Areas:
    """What Engine is made of besides runs themselves. Everything here is the owner's."""

    def __init__(self, store: Store, owner: str):
        self.store, self.owner = store, owner

    @cached_property
    def drafts(self) -> Drafts:
        """What the wizard keeps until it is launched."""
        return Drafts(self.store, self.owner)

    @cached_property
    def presets(self) -> Presets:
        """Settings under a name."""
        return Presets(self.store, self.owner)

    @cached_property
    def profiles(self) -> Profiles:
        """Named bundles of changes to the data, a system prompt and stop strings: see engine.profiles."""
        return Profiles(self.store, self.owner)

    @cached_property
    def rehearsals(self) -> Rehearsals:
        """Recipes tried out small before they cost hours or money: see engine.rehearsals."""
        return Rehearsals(self.store, self.owner)

    @cached_property
    def planner(self) -> Planner:
        """Whole recipes with reasons, estimates and warnings."""
        return Planner(self.store, self.owner)

    @cached_property
    def stages(self) -> Stages:
        """What follows one another in the draft: see engine.staging."""
        return Stages(self.planner, self.drafts, self.datasets)

    @cached_property
    def runs(self) -> Runs:
        """Many runs at a glance: cards, comparisons, the run doctor, what to copy."""
        return Runs(self.store, self.owner)

    @cached_property
    def spending(self) -> Spending:
        """Tokens and money of runs, and what models cost: see engine.spending."""
        return Spending(self.store, self.owner)

    @cached_property
    def travel(self) -> Travel:
        """One prompt, answered by every checkpoint of a run."""
        return Travel(self.store, self.owner)

    @cached_property
    def datasets(self) -> Library:
        """The person's data sets, and those that ship with Thinker: see engine.library."""
        return Library(self.store, self.owner)

    @cached_property
    def keys(self) -> Keyring:
        """Keys of endpoints, present or not: see engine.keyring."""
        return Keyring(self.store, self.owner)

    @cached_property
    def remotes(self) -> Remotes:
        """Servers named by URL, and what each can do: see engine.remotes."""
        return Remotes(self.store, self.owner)

    @cached_property
    def judges(self) -> Judges:
        """Servers that answer over OpenAI's API, for judges and teachers: see engine.judges."""
        from engine.judges import Judges

        return Judges(self.store, self.owner)

    @cached_property
    def stored(self) -> Stored:
        """Checkpoints that lie at an endpoint elsewhere: see engine.stored."""
        return Stored(self.store, self.owner)

    @cached_property
    def settings(self) -> Settings:
        """What the person chose or has seen: see engine.settings."""
        return Settings(self.store, self.owner)

    @cached_property
    def assistant(self) -> Assistant:
        """Goals, questions and runs in plain English: see engine.assistant."""
        from engine.assistant import Assistant

        return Assistant(self.store, self.owner)

    @cached_property
    def defaults(self) -> Defaults:
        """What new trainings start from: see engine.defaults."""
        return Defaults(self.store, self.owner)

    @cached_property
    def upkeep(self) -> Upkeep:
        """The data directory, and diagnostics: see engine.upkeep."""
        return Upkeep(self.store, self.owner)

    @cached_property
    def next_steps(self) -> NextSteps:
        """What the person would sensibly do next: see engine.next_steps."""
        return NextSteps(self.store, self.owner)

    @cached_property
    def keeping(self) -> Keeping:
        """What runs have saved, what is kept of it, and what it takes: see engine.keeping."""
        return Keeping(self.store, self.owner)

    @cached_property
    def diagnosis(self) -> Diagnoser:
        """Why a run doesn't go on, and what to change: see engine.diagnosis."""
        from engine.diagnosis import Diagnoser

        return Diagnoser(self.store, self.owner)

    @cached_property
    def playground(self) -> Playground:
        """Conversations that are kept, streamed over HTTP: see engine.playground."""
        from engine.playground import Playground

        return Playground(self.store, self.owner)

    @cached_property
    def ratings(self) -> Ratings:
        """Answers found good or bad in chats: see engine.ratings."""
        from engine.ratings import Ratings

        return Ratings(self.store, self.owner, self.playground)

    @cached_property
    def registry(self) -> Registry:
        """Tuned models with all that is known of them: see engine.registry."""
        from engine.registry import Registry

        return Registry(self.store, self.owner)

    @cached_property
    def rewards(self) -> Rewards:
        """What answers can be scored by, tried out: see engine.rewards."""
        from engine.rewards import Rewards

        return Rewards(self.store, self.owner)

    @cached_property
    def teaching(self) -> Teaching:
        """Answers that were corrected, and the lessons made of them: see engine.teaching."""
        from engine.teaching import Teaching

        return Teaching(self.store, self.owner, self.playground)
