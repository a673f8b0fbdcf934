"""A Recipe says all there is to say of a run, and nothing of where the run has got to.

Wizard, forms, presets, the CLI and the assistant all make one and hand it to `Engine.launch`. Frozen, checked
on construction, round-trips as JSON and YAML. Each field carries its help, unit and healthy range once: forms,
tooltips, the guide and the CLI read them here (`fields()`). It never holds a secret.

    field.py    what parts are made of
    parts.py    what every method reads
    methods.py  what one method reads, and which methods there are
    chain.py    the stages that follow one another
    recipe.py   the whole
"""

from engine.recipe.chain import BLANK_DATA, MAY_CHANGE, OF_STAGE, Stage, follower, written
from engine.recipe.methods import DPO, KTO, METHODS, RL, Distill, OwnLoss, Reward, RewardModel, RewardPart
from engine.recipe.parts import (
    FORMATS,
    RENDERERS,
    TRANSFORMS,
    Budget,
    Checkpoints,
    DataSpec,
    Evaluation,
    Lora,
    Mixed,
    Preview,
    Start,
    Training,
    Transform,
)
from engine.recipe.recipe import Recipe, fields, method_parts

__all__ = [
    "BLANK_DATA", "DPO", "FORMATS", "KTO", "MAY_CHANGE", "METHODS", "OF_STAGE", "RENDERERS", "RL", "TRANSFORMS", "Budget", "Checkpoints",
    "DataSpec", "Distill", "Evaluation", "Lora", "Mixed", "OwnLoss", "Preview", "Recipe", "Reward", "RewardModel", "RewardPart", "Stage",
    "Start", "Training", "Transform", "fields", "follower", "method_parts", "written",
]  # fmt: skip
