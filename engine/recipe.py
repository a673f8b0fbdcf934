"""A Recipe says all there is to say of a run, and nothing of where the run has got to.

Wizard, forms, presets, the CLI and the assistant all make one and hand it to `Engine.launch`. Frozen, checked
on construction, round-trips as JSON and YAML. Each field carries its help, unit and healthy range once: forms,
tooltips, the guide and the CLI read them here (`fields()`). It never holds a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from engine.errors import RecipeError

RENDERERS = ("auto", "chat_template", "llama3", "qwen3", "chatml", "role_colon")
FORMATS = ("auto", "messages", "prompt_completion", "alpaca")


def _field(default: Any, help: str, *, unit: str = "", healthy: tuple[float, float] | None = None, **checks: Any) -> Any:
    """A field with its one description; `healthy` is the range in which most runs do well."""
    extra: dict[str, Any] = {"unit": unit}
    if healthy:
        extra["healthy"] = list(healthy)
    if isinstance(default, type) and issubclass(default, BaseModel):
        return Field(default_factory=default, description=help, json_schema_extra=extra, **checks)
    return Field(default=default, description=help, json_schema_extra=extra, **checks)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSpec(_Part):
    """Which examples, and how to read them."""

    demo: str = _field("", "A data set that ships with Thinker, by name; leave empty for your own file.")
    path: str = _field("", "Your own file: JSONL, JSON, CSV or Parquet of chat messages, prompt/completion or Alpaca rows.")
    dataset: str = _field(
        "", "A data set of your library, by its id, which stays the same when it is renamed.", pattern="^([0-9a-f]{12})?$"
    )
    format: Literal[FORMATS] = _field("auto", "How rows are laid out; auto looks at them.")
    mapping: dict[str, str] = _field({}, "Your column for each standard field, where the names differ: {standard: yours}.")
    held_out_path: str = _field("", "A file of examples kept for the proof and never trained on; empty splits some off.")
    held_out_fraction: float = _field(
        0.1, "The share of examples kept for the proof when no held-out file is given.", ge=0, le=0.5, healthy=(0.05, 0.2)
    )
    held_out_max: int = _field(400, "At most this many held-out examples.", unit="examples", ge=1, healthy=(100, 500))


class Start(_Part):
    """What an earlier run had learned, to go on from. Base model and adapter shape come from there."""

    checkpoint: str = _field(
        "",
        "Go on from this instead of the bare base model (start checkpoint): a tuned model's id or name, a run's checkpoint as JOB@STEP, "
        "or a tinker:// path of saved weights.",
        max_length=400,
    )
    optimizer: bool = _field(False, "Take over Adam's memory of past gradients too (optimizer state), as if that run went on.")

    @model_validator(mode="after")
    def _optimizer_of_something(self) -> Start:
        if self.optimizer and not self.checkpoint:
            raise ValueError("the optimizer's state comes from a checkpoint, and none is given")
        return self


class Lora(_Part):
    """The adapter that is trained on top of the frozen base model (low-rank adaptation)."""

    rank: int = _field(32, "How much the adapter can hold (LoRA rank).", ge=1, le=512, healthy=(8, 128))
    train_mlp: bool = _field(True, "Adapt the feed-forward layers.")
    train_attn: bool = _field(True, "Adapt the attention layers.")
    train_unembed: bool = _field(False, "Adapt the output layer (unembedding).")

    @model_validator(mode="after")
    def _trains_something(self) -> Lora:
        if not (self.train_mlp or self.train_attn or self.train_unembed):
            raise ValueError("nothing would be trained: switch on train_mlp, train_attn or train_unembed")
        return self


class Training(_Part):
    """How the model learns."""

    epochs: float = _field(
        1.0, "How many times the data is gone through (epochs); not used when steps is set.", gt=0, le=1000, healthy=(1, 5)
    )
    steps: int | None = _field(None, "Exactly this many updates, whatever the data's size.", unit="steps", ge=1)
    batch_size: int = _field(32, "How many examples at once (batch size).", unit="examples", ge=1, le=4096, healthy=(8, 128))
    learning_rate: float = _field(5e-4, "How big each update is (learning rate).", gt=0, le=1, healthy=(1e-5, 5e-3))
    schedule: Literal["linear", "cosine", "constant"] = _field("linear", "How the learning rate falls over the run (schedule).")
    warmup: float = _field(
        0.05, "The share of the run over which the learning rate rises from 0 (warm-up).", ge=0, le=0.5, healthy=(0, 0.1)
    )
    final_lr_fraction: float = _field(0.0, "The share of the learning rate that is left at the end.", ge=0, le=1)
    weight_decay: float = _field(0.0, "Pull of the weights towards zero (AdamW's weight decay).", ge=0, le=1, healthy=(0, 0.1))
    beta1: float = _field(0.9, "Adam's memory of past gradients (beta1).", ge=0, lt=1)
    beta2: float = _field(0.95, "Adam's memory of past squared gradients (beta2).", ge=0, lt=1)
    eps: float = _field(1e-8, "Adam's guard against dividing by zero (epsilon).", gt=0)
    grad_clip_norm: float = _field(1.0, "Longer gradients are cut to this length (gradient clipping); 0 cuts none.", ge=0, healthy=(0.3, 5))
    max_length: int | None = _field(
        None, "Longer examples are cut to this many tokens; empty means the model's own limit.", unit="tokens", ge=8
    )


class Evaluation(_Part):
    """What is watched during the run and proven after it."""

    eval_every: int = _field(25, "Held-out loss is measured every so many steps; 0 never.", unit="steps", ge=0)
    samples_every: int = _field(10, "The model answers a few fixed prompts every so many steps; 0 never.", unit="steps", ge=0)
    samples: int = _field(4, "How many fixed prompts it answers.", unit="prompts", ge=0, le=32)
    proof: bool = _field(True, "Measure exact match, token F1 and perplexity on held-out data before and after.")
    skills: bool = _field(True, "Measure general skills before and after, to see what was forgotten.")
    skills_max: int = _field(200, "At most this many general-skill prompts.", unit="prompts", ge=1)
    max_new_tokens: int = _field(64, "The longest answer in samples and in the proof.", unit="tokens", ge=1, le=8192)


class Checkpoints(_Part):
    """How often the run is made safe."""

    every_steps: int = _field(500, "Save every so many steps; 0 leaves it to the clock.", unit="steps", ge=0)
    every_seconds: float = _field(120.0, "Save at least this often; 0 leaves it to the steps.", unit="seconds", ge=0)


class Recipe(_Part):
    """One run: method, model, data, place, hyperparameters, proof."""

    name: str = _field("", "What to call it; empty makes a name from the data and the method.", max_length=120)
    method: Literal["sft"] = _field("sft", "How it learns; sft is learning from example answers (supervised fine-tuning).")
    base_model: str = _field("nano", "The model to start from: nano, a local folder, or a Hugging Face hub id.", min_length=1)
    start: Start = _field(Start, "What an earlier run had learned, to go on from.")
    endpoint: str = _field("local", "What does the training: local is this machine.", min_length=1)
    data: DataSpec = _field(DataSpec, "Which examples, and how to read them.")
    renderer: Literal[RENDERERS] = _field("auto", "How a chat becomes tokens; auto is the model's own chat template, else role_colon.")
    system_prompt: str = _field("", "Put before every conversation that has no system message of its own, in training and in chats.")
    stop: tuple[str, ...] = _field((), "The model stops when it writes one of these, beside its own end mark (stop strings).")
    full: bool = _field(False, "Train all weights (full fine-tuning) instead of an adapter; the lora part is unused then.")
    lora: Lora = _field(Lora, "The adapter.")
    training: Training = _field(Training, "How the model learns.")
    evaluation: Evaluation = _field(Evaluation, "What is watched and proven.")
    checkpoints: Checkpoints = _field(Checkpoints, "How often the run is made safe.")
    seed: int = _field(0, "Same seed, same data order and same adapter start.", ge=0, lt=2**31)

    @field_validator("start", mode="before")
    @classmethod
    def _short_start(cls, value: Any) -> Any:
        return {"checkpoint": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Recipe:
        if sum(map(bool, (self.data.demo, self.data.path, self.data.dataset))) > 1:
            raise ValueError("data: give one of demo, path and dataset, not several")
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

    def merged(self, changes: dict[str, Any]) -> Recipe:
        """A copy with some fields changed; parts merge field by field."""
        return Recipe.make(_merge(self.model_dump(mode="json"), changes))

    def to_json(self) -> str:
        """JSON that `make(json.loads(...))` turns back into an equal recipe."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False)

    def to_yaml(self) -> str:
        """YAML of what differs from the defaults, for people to keep and edit."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)


def fields(part: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Every field, flat: {name: 'training.batch_size', help, unit, healthy, default, kind, choices, optional}.

    `kind` is bool, int, float, text, choice, list or mapping.
    """
    for name, info in part.model_fields.items():
        inner = info.default_factory if isinstance(info.default_factory, type) else None
        if inner and issubclass(inner, BaseModel):
            yield from fields(inner, f"{prefix}{name}.")
            continue
        extra = info.json_schema_extra or {}
        yield {
            "name": prefix + name,
            "help": info.description,
            "unit": extra.get("unit", ""),
            "healthy": extra.get("healthy"),
            "default": info.get_default(call_default_factory=True),
            **_kind(info.annotation),
        }


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
