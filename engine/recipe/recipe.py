"""The Recipe itself: method, model, data, place, hyperparameters, proof; how it is read and written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import ValidationError, field_validator, model_validator

from engine.errors import RecipeError
from engine.recipe.chain import Stage, stages
from engine.recipe.field import Part, field
from engine.recipe.methods import DPO, KTO, METHODS, RL, Distill, OwnLoss, Reward, RewardModel
from engine.recipe.parts import RENDERERS, Budget, Checkpoints, DataSpec, Evaluation, Lora, Start, Training


class Recipe(Part):
    """One run: method, model, data, place, hyperparameters, proof."""

    name: str = field("", "What to call it; empty makes a name from the data and the method.", max_length=120)
    method: Literal[METHODS] = field("sft", "How it learns; sft is learning from example answers (supervised fine-tuning).")
    base_model: str = field("nano", "The model to start from: nano, a local folder, or a Hugging Face hub id.", min_length=1)
    start: Start = field(Start, "What an earlier run had learned, to go on from.")
    endpoint: str = field("local", "What does the training: local is this machine.", min_length=1)
    data: DataSpec = field(DataSpec, "Which examples, and how to read them.")
    renderer: Literal[RENDERERS] = field("auto", "How a chat becomes tokens; auto is the model's own chat template, else role_colon.")
    system_prompt: str = field("", "Put before every conversation that has no system message of its own, in training and in chats.")
    stop: tuple[str, ...] = field((), "The model stops when it writes one of these, beside its own end mark (stop strings).")
    profile: str = field(
        "",
        "A named bundle of changes to the data, a system prompt and stop strings; its content is taken over at the launch, and the name "
        "then ends in a mark of it.",
        max_length=100,
    )
    full: bool = field(False, "Train all weights (full fine-tuning) instead of an adapter; the lora part is unused then.")
    lora: Lora = field(Lora, "The adapter.")
    training: Training = field(Training, "How the model learns.")
    dpo: DPO = field(DPO, "Learning from pairs.")
    kto: KTO = field(KTO, "Learning from answers found good or bad.")
    rl: RL = field(RL, "Trying out answers.")
    reward: Reward = field(Reward, "What a good answer is, as numbers.")
    reward_model: RewardModel = field(RewardModel, "The model that learns to score.")
    distill: Distill = field(Distill, "Learning from another model.")
    own_loss: OwnLoss = field(OwnLoss, "Your own way of weighing tokens.")
    evaluation: Evaluation = field(Evaluation, "What is watched and proven.")
    checkpoints: Checkpoints = field(Checkpoints, "How often the run is made safe, and what is kept.")
    budget: Budget = field(Budget, "What the run may cost at most.")
    seed: int = field(0, "Same seed, same data order and same adapter start.", ge=0, lt=2**31)

    then: tuple[dict[str, Any], ...] = field(
        (),
        "What follows in the same run, stage by stage: each says what differs from the stage before it, such as method, data and training.",
        max_length=8,
    )

    @field_validator("start", mode="before")
    @classmethod
    def _short_start(cls, value: Any) -> Any:
        return {"checkpoint": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Recipe:
        if sum(map(bool, (self.data.demo, self.data.path, self.data.dataset))) > 1:
            raise ValueError("data: give one of demo, path and dataset, not several")
        return self

    @model_validator(mode="after")
    def _stages_that_can_be(self) -> Recipe:
        if self.then:
            try:
                stages(self)
            except RecipeError as error:
                raise ValueError(f"{error.where}: {error.message}") from error
        return self

    @classmethod
    def make(cls, values: dict[str, Any]) -> Recipe:
        """A checked recipe from plain values. Raises RecipeError that names the field."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise RecipeError(
                first["msg"].removeprefix("Value error, "),
                f"Correct {place or 'the recipe'} and try again.",
                where=f"recipe {place}".strip(),
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """The recipe in a JSON or YAML file. Raises RecipeError."""
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RecipeError(f"can't read the recipe: {error}", "Give a JSON or YAML file.", where=str(path)) from error
        return cls._of(values, str(path))

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """The recipe in JSON or YAML. Raises RecipeError."""
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"can't read the recipe: {error}", "Give it as JSON or YAML.", where="recipe") from error
        return cls._of(values, "recipe")

    @classmethod
    def _of(cls, values: Any, where: str) -> Recipe:
        if not isinstance(values, dict):
            raise RecipeError("this holds no recipe", "A recipe is a JSON or YAML object of fields.", where=where)
        return cls.make(values)

    def stages(self) -> list[Stage]:
        """What is done one after the other: this recipe and what it says is to follow. Each stage's recipe has no followers."""
        return stages(self)

    def merged(self, changes: dict[str, Any]) -> Recipe:
        """A copy with some fields changed; parts merge field by field."""
        return Recipe.make(_merge(self.model_dump(mode="json"), changes))

    def to_json(self) -> str:
        """JSON that `make(json.loads(...))` turns back into an equal recipe."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False)

    def to_yaml(self) -> str:
        """YAML of what differs from the defaults, for people to keep and edit."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)


def fields(part: type[Part] = Recipe, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Every field, flat: {name: 'training.batch_size', help, unit, healthy, default, kind, choices, optional, methods}.

    `kind` is bool, int, float, text, choice, list or mapping. `methods` are those that read it, empty for all; what only methods
    read that there aren't is left out.
    """
    for name, info in part.model_fields.items():
        inner = info.default_factory if isinstance(info.default_factory, type) else None
        if inner and issubclass(inner, Part):
            if not inner.of_methods or set(inner.of_methods) & set(METHODS):
                yield from fields(inner, f"{prefix}{name}.")
            continue
        extra = info.json_schema_extra or {}
        yield {
            "name": prefix + name,
            "help": info.description,
            "unit": extra.get("unit", ""),
            "healthy": extra.get("healthy"),
            "default": info.get_default(call_default_factory=True),
            "methods": part.of_methods,
            **_kind(info.annotation),
        }


def method_parts(*methods: str) -> list[str]:
    """The parts of a recipe that these methods read beside what all read; without any, those of all methods that there are."""
    wanted = set(methods or METHODS)
    return list(dict.fromkeys(field["name"].partition(".")[0] for field in fields() if wanted & set(field["methods"])))


def _kind(annotation: Any) -> dict[str, Any]:
    """What sort of value a field takes."""
    inside = get_args(annotation)
    optional = type(None) in inside
    if optional:
        annotation = next(kind for kind in inside if kind is not type(None))
    if get_origin(annotation) is Literal:
        return {"kind": "choice", "choices": list(inside), "optional": optional}
    known = {bool: "bool", int: "int", float: "float", str: "text", dict: "mapping", tuple: "list"}
    return {"kind": known[get_origin(annotation) or annotation], "choices": [], "optional": optional}


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        whole = key == "mapping" or not isinstance(value, dict) or not isinstance(merged.get(key), dict)
        merged[key] = value if whole else _merge(merged[key], value)
    return merged
