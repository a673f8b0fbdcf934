"""The parts of a recipe that every method reads: data, start, adapter, training, evaluation, checkpoints, budget."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from engine.recipe.field import Part, field
from engine.recipe.methods import RewardPart

RENDERERS = ("auto", "chat_template", "llama3", "qwen3", "chatml", "role_colon")
FORMATS = (
    "auto", "messages", "prompt_completion", "alpaca",
    "preference", "openai_preference", "rejected_message", "labelled", "labelled_messages", "prompt", "prompt_messages",
)  # fmt: skip


class Mixed(Part):
    """A further source of examples that is mixed in."""

    demo: str = field("", "A data set that ships with Thinker, by name.")
    path: str = field("", "A file.")
    dataset: str = field("", "A data set of your library, by its id.", pattern="^([0-9a-f]{12})?$")
    format: Literal[FORMATS] = field("auto", "How its rows are laid out; auto looks at them.")
    mapping: dict[str, str] = field({}, "Your column for each standard field: {standard: yours}.")
    weight: float = field(0.2, "The share of all rows drawn that are from here.", gt=0, lt=1, healthy=(0.05, 0.5))

    @model_validator(mode="after")
    def _one_source(self) -> Mixed:
        if sum(map(bool, (self.demo, self.path, self.dataset))) != 1:
            raise ValueError("each source that is mixed in is one of demo, path and dataset")
        return self


TRANSFORMS = (
    "strip", "one_line", "lower_case", "template", "first_paragraph", "first_line", "plain_text", "unfence", "compact_json",
    "drop_thoughts", "at_most_words", "replace", "system",
)  # fmt: skip


class Transform(Part):
    """One change that every example goes through before anything else is done with it; what a kind doesn't read is left as it is."""

    kind: Literal[TRANSFORMS] = field("strip", "What is done.")
    part: Literal["prompt", "answer", "both"] = field("answer", "To what: what is asked, what is answered, or both.")
    text: str = field(
        "",
        "What is written: with template a text that holds {prompt} or {answer}, and other columns as {their name}; with replace what "
        "stands there afterwards; with system the system message.",
        max_length=20_000,
    )
    find: str = field("", "The text that is replaced, word for word (replace).", max_length=2000)
    words: int | None = field(None, "Rows with more words than this are left out (at_most_words).", unit="words", ge=1)

    @model_validator(mode="after")
    def _whole_kind(self) -> Transform:
        if self.kind == "template":
            if self.part == "both":
                raise ValueError("a template is for the prompt or for the answer: make one for each")
            if f"{{{self.part}}}" not in self.text:
                raise ValueError(f"the template has no place for what it is about: write {{{self.part}}} into its text")
        if self.kind == "system" and not self.text.strip():
            raise ValueError("system needs the text of the system message")
        if self.kind == "replace" and not self.find:
            raise ValueError("replace needs the text to find")
        if self.kind == "at_most_words" and self.words is None:
            raise ValueError("at_most_words needs a number of words")
        return self


class DataSpec(Part):
    """Which examples, and how to read them."""

    demo: str = field("", "A data set that ships with Thinker, by name; leave empty for your own file.")
    path: str = field("", "Your own file: JSONL, JSON, CSV or Parquet of chats, prompts with answers, pairs, thumbs or prompts.")
    dataset: str = field("", "A data set of your library, by its id, which stays the same when it is renamed.", pattern="^([0-9a-f]{12})?$")
    format: Literal[FORMATS] = field("auto", "How rows are laid out; auto looks at them.")
    mapping: dict[str, str] = field({}, "Your column for each standard field, where the names differ: {standard: yours}.")
    held_out_path: str = field("", "A file of examples kept for the proof and never trained on; empty splits some off.")
    held_out_fraction: float = field(
        0.1, "The share of examples kept for the proof when no held-out file is given.", ge=0, le=0.5, healthy=(0.05, 0.2)
    )
    held_out_max: int = field(400, "At most this many held-out examples.", unit="examples", ge=1, healthy=(100, 500))
    curriculum: Literal["none", "length", "column", "loss"] = field(
        "none",
        "In which order examples are first gone through: none draws them, length goes from short to long, column from low to high numbers, "
        "loss from what surprises the model least before training to what does most (curriculum). Later times they are drawn.",
    )
    curriculum_column: str = field("", "The column that says how hard each example is, as a number; low is easy.", max_length=200)
    mix: tuple[Mixed, ...] = field(
        (),
        "Further data to learn from: for each {demo, path or dataset, weight}; the weight is its share of all rows drawn (multi-task "
        "mixing). The proof stays on the main data.",
        max_length=16,
    )

    transforms: tuple[Transform, ...] = field(
        (),
        "What is done to every example, in this order: strip, template, first_paragraph, ... Older skills mixed in stay as they are.",
        max_length=32,
    )

    @model_validator(mode="after")
    def _order_that_can_be(self) -> DataSpec:
        if (self.curriculum == "column") != bool(self.curriculum_column):
            raise ValueError("curriculum and curriculum_column go together: name the column, or choose another curriculum")
        if sum(source.weight for source in self.mix) > 0.999:
            raise ValueError("the weights in mix leave nothing for the main data: together they have to stay below 1")
        return self


class Start(Part):
    """What an earlier run had learned, to go on from. Base model and adapter shape come from there."""

    checkpoint: str = field(
        "",
        "Go on from this instead of the bare base model (start checkpoint): a tuned model's id or name, a run's checkpoint as JOB@STEP, "
        "or a tinker:// path of saved weights.",
        max_length=400,
    )
    optimizer: bool = field(False, "Take over Adam's memory of past gradients too (optimizer state), as if that run went on.")

    @model_validator(mode="after")
    def _optimizer_of_something(self) -> Start:
        if self.optimizer and not self.checkpoint:
            raise ValueError("the optimizer's state comes from a checkpoint, and none is given")
        return self


class Lora(Part):
    """The adapter that is trained on top of the frozen base model (low-rank adaptation)."""

    rank: int = field(32, "How much the adapter can hold (LoRA rank).", ge=1, le=512, healthy=(8, 128))
    train_mlp: bool = field(True, "Adapt the feed-forward layers.")
    train_attn: bool = field(True, "Adapt the attention layers.")
    train_unembed: bool = field(False, "Adapt the output layer (unembedding).")

    @model_validator(mode="after")
    def _trains_something(self) -> Lora:
        if not (self.train_mlp or self.train_attn or self.train_unembed):
            raise ValueError("nothing would be trained: switch on train_mlp, train_attn or train_unembed")
        return self


class Training(Part):
    """How the model learns."""

    epochs: float = field(
        1.0, "How many times the data is gone through (epochs); not used when steps is set.", gt=0, le=1000, healthy=(1, 5)
    )
    steps: int | None = field(None, "Exactly this many updates, whatever the data's size.", unit="steps", ge=1)
    batch_size: int = field(32, "How many examples at once (batch size).", unit="examples", ge=1, le=4096, healthy=(8, 128))
    learning_rate: float = field(5e-4, "How big each update is (learning rate).", gt=0, le=1, healthy=(1e-5, 5e-3))
    schedule: Literal["linear", "cosine", "constant"] = field("linear", "How the learning rate falls over the run (schedule).")
    warmup: float = field(0.05, "The share of the run over which the learning rate rises from 0 (warm-up).", ge=0, le=0.5, healthy=(0, 0.1))
    final_lr_fraction: float = field(0.0, "The share of the learning rate that is left at the end.", ge=0, le=1)
    weight_decay: float = field(0.0, "Pull of the weights towards zero (AdamW's weight decay).", ge=0, le=1, healthy=(0, 0.1))
    beta1: float = field(0.9, "Adam's memory of past gradients (beta1).", ge=0, lt=1)
    beta2: float = field(0.95, "Adam's memory of past squared gradients (beta2).", ge=0, lt=1)
    eps: float = field(1e-8, "Adam's guard against dividing by zero (epsilon).", gt=0)
    grad_clip_norm: float = field(1.0, "Longer gradients are cut to this length (gradient clipping); 0 cuts none.", ge=0, healthy=(0.3, 5))
    patience: int | None = field(
        None,
        "Stop when the held-out number hasn't got better in so many measurements (early stopping); empty goes on to the end.",
        unit="measurements",
        ge=1,
        healthy=(3, 10),
    )
    keep_best: bool = field(False, "Keep the model as it was when the held-out number was best, instead of the last (best checkpoint).")
    plateau: int | None = field(
        None,
        "Lower the learning rate when the held-out number hasn't got better in so many measurements (plateau); empty never does.",
        unit="measurements",
        ge=1,
        healthy=(2, 5),
    )
    plateau_factor: float = field(0.5, "To what share of itself the learning rate is lowered then.", gt=0, lt=1, healthy=(0.1, 0.5))
    max_length: int | None = field(
        None, "Longer examples are cut to this many tokens; empty means the model's own limit.", unit="tokens", ge=8
    )


class Preview(Part):
    """A prompt of the person's own that is answered again and again while the model learns."""

    prompt: str = field("", "What is asked.", min_length=1, max_length=20_000)
    expected: str = field("", "The right answer, if there is one.", max_length=20_000)


class Evaluation(Part):
    """What is watched during the run and proven after it."""

    eval_every: int = field(25, "Held-out loss is measured every so many steps; 0 never.", unit="steps", ge=0)
    samples_every: int = field(10, "The model answers a few fixed prompts every so many steps; 0 never.", unit="steps", ge=0)
    samples: int = field(4, "How many fixed prompts it answers.", unit="prompts", ge=0, le=32)
    previews: tuple[Preview, ...] = field(
        (), "Prompts of your own, with the expected answer or without, that it answers as often (previews).", max_length=16
    )
    preview_seconds: float = field(
        10.0, "A preview that takes longer than this is passed over.", unit="seconds", gt=0, le=600, healthy=(5, 60)
    )
    preview_endpoint: str = field("", "Where previews are answered; empty is where the run is.", max_length=100)
    proof: bool = field(True, "Test it on held-out data before and after: exact match, token F1, perplexity, win rate (proof).")
    skills: bool = field(True, "Measure general skills before and after, to see what was forgotten.")
    skills_max: int = field(200, "At most this many general-skill prompts.", unit="prompts", ge=1)
    max_new_tokens: int = field(64, "The longest answer in samples and in the proof.", unit="tokens", ge=1, le=8192)
    judge: tuple[RewardPart, ...] = field(
        (),
        "Who says in the proof which answers are better than those that the last stage began with (win rate): parts as in reward.parts. "
        "Empty goes by the right answers, where there are any. Take another one than what the run learns from.",
        max_length=16,
    )

    @field_validator("judge")
    @classmethod
    def _judges_from_outside(cls, value: tuple[RewardPart, ...]) -> tuple[RewardPart, ...]:
        if any(part.model.startswith("stage:") for part in value):
            raise ValueError("a judge that the run itself has trained proves nothing: take a rule, or another model")
        return value

    @field_validator("previews", mode="before")
    @classmethod
    def _short_previews(cls, value: Any) -> Any:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            return value
        return [{"prompt": one} if isinstance(one, str) else one for one in value]


class Checkpoints(Part):
    """How often the run is made safe, and what is kept of it."""

    every_steps: int = field(500, "Save every so many steps; 0 leaves it to the clock.", unit="steps", ge=0)
    every_seconds: float = field(120.0, "Save at least this often; 0 leaves it to the steps.", unit="seconds", ge=0)
    keep_last: int | None = field(
        5,
        "How many of the newest states to go on from are kept; empty keeps all. The best, the last, a stage's end and what you pin always "
        "stay, and so does what is there to use.",
        unit="checkpoints",
        ge=1,
        healthy=(2, 10),
    )
    max_gb: float | None = field(
        20.0,
        "At most so much disk for the run's checkpoints; empty sets no limit. States to go on from go first, then every other one to use; "
        "the best, the last, a stage's end and what you pin always stay.",
        unit="GB",
        gt=0,
        healthy=(1, 100),
    )


class Budget(Part):
    """What the run may cost at most (hard cap): it saves and stops before it would go past, and can be resumed with more."""

    max_dollars: float | None = field(None, "At most so much money, counted by the price list; empty sets no limit.", unit="dollars", gt=0)
    max_tokens: int | None = field(None, "At most so many tokens, read, written and learned from together.", unit="tokens", ge=1)
    max_minutes: float | None = field(None, "At most so long, tests and saving included, pauses not.", unit="minutes", gt=0)
