"""What a method adds to a recipe: one part each, read by that method alone. Also the table of methods that there are."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from engine.recipe.field import Part, field

METHODS = ("sft", "dpo", "kto", "rl", "reward_model", "rlhf", "distill", "own_loss")
"""The methods that can be chosen. Parts whose methods aren't here stand in no form and no guide."""


class DPO(Part):
    """Learning from pairs of a better and a worse answer (direct preference optimisation)."""

    of_methods: ClassVar[tuple[str, ...]] = ("dpo",)

    variant: Literal["dpo", "ipo", "simpo"] = field(
        "dpo",
        "How the two answers are weighed: dpo is the usual way, ipo holds back on pairs that are easy, simpo needs no reference (variant).",
    )
    beta: float = field(
        0.1, "How strongly the model is held to what it was before (beta); higher holds it closer.", gt=0, le=10, healthy=(0.05, 0.5)
    )
    nll: float = field(
        0.3,
        "How much the better answer is also learned by heart (NLL term); 0 lets it become unlikely as long as the worse one does more so.",
        ge=0,
        le=10,
        healthy=(0.1, 1),
    )
    margin: float = field(0.5, "By how much the better answer should lead, with simpo only (target margin, gamma).", ge=0, le=10)


class KTO(Part):
    """Learning from answers that were each found good or bad (Kahneman-Tversky optimisation)."""

    of_methods: ClassVar[tuple[str, ...]] = ("kto",)

    beta: float = field(
        0.1, "How strongly the model is held to what it was before (beta); higher holds it closer.", gt=0, le=10, healthy=(0.05, 0.5)
    )
    good_weight: float = field(1.0, "How much an answer that was found good counts.", ge=0, le=100, healthy=(0.5, 2))
    bad_weight: float = field(1.0, "How much an answer that was found bad counts.", ge=0, le=100, healthy=(0.5, 2))


class RL(Part):
    """Trying out answers and making those likelier that score well (reinforcement learning, the GRPO family)."""

    of_methods: ClassVar[tuple[str, ...]] = ("rl", "rlhf")

    group_size: int = field(8, "How many answers are tried for each prompt (group size).", unit="answers", ge=2, le=256, healthy=(4, 32))
    temperature: float = field(1.0, "How freely answers are drawn (temperature).", gt=0, le=2, healthy=(0.7, 1.2))
    max_new_tokens: int = field(64, "The longest answer that is tried.", unit="tokens", ge=1, le=32_768)
    loss: Literal["importance_sampling", "ppo", "cispo"] = field(
        "importance_sampling",
        "How a score becomes an update: importance_sampling is plain policy gradient, ppo cuts large steps off, cispo caps their weight.",
    )
    clip_low: float = field(0.2, "How far below 1 the probability ratio may go before it is clipped, with ppo and cispo.", gt=0, lt=1)
    clip_high: float = field(0.2, "How far above 1 the probability ratio may go before it is clipped, with ppo and cispo.", gt=0, le=10)
    advantage: Literal["normalised", "centred"] = field(
        "normalised", "How scores of one prompt's answers are compared: less their mean, or also divided by their spread (advantage)."
    )
    kl: float = field(
        0.0, "How much straying from the model it started as costs, a token (KL penalty).", ge=0, le=10, unit="score/nat", healthy=(0, 0.1)
    )
    updates: int = field(
        1,
        "How many updates each step takes from its answers, each from a share of them (inner steps); more than 1 wants ppo or cispo.",
        ge=1,
        le=64,
        healthy=(1, 4),
    )
    ahead: bool = field(
        False, "Draw the next step's answers while this one trains, from weights that are one step old (asynchronous, off-policy by one)."
    )
    skip_flat: bool = field(True, "Leave out prompts whose answers all score the same: there is nothing to learn from them.")

    @model_validator(mode="after")
    def _clips_several(self) -> RL:
        if self.updates > 1 and self.loss == "importance_sampling":
            raise ValueError("several updates from the same answers need a loss that clips: choose ppo or cispo")
        return self


REWARD_QUESTION = "Is that a good answer? Say yes or no."
REWARDS = (
    "exact", "normalised", "numeric", "regex", "json_schema", "length", "contains", "code_tests", "judge", "reward_model", "python",
)  # fmt: skip


class RewardPart(Part):
    """One thing that an answer is scored by, from 0 to 1 unless said otherwise; what a kind doesn't read is left as it is."""

    kind: Literal[REWARDS] = field("exact", "What is looked at.")
    weight: float = field(1.0, "How much it counts in the sum; below 0 it is a penalty.", ge=-1000, le=1000)
    name: str = field("", "What to call it in charts; empty takes its kind.", max_length=40, pattern=r"^[A-Za-z0-9_ -]*$")
    expected: str = field("", "The column that holds what is expected; empty means the row's own answer.", max_length=100)
    tolerance: float = field(1e-6, "How far a number may be off, as a share of the expected one (numeric).", ge=0, le=1)
    pattern: str = field("", "The regular expression that has to be found in the answer (regex).", max_length=2000)
    whole: bool = field(False, "The whole answer has to fit the expression (regex).")
    form: dict[str, Any] = field({}, "What the answer has to be as JSON, as a JSON schema (json_schema).")
    texts: tuple[str, ...] = field((), "Texts that are looked for (contains); empty looks for the row's own answer.")
    want: Literal["all", "any", "none", "share"] = field("all", "How many of the texts have to be there (contains).")
    ignore_case: bool = field(True, "Capitals don't matter (contains, regex).")
    shortest: int | None = field(None, "Answers with fewer lose score (length).", ge=0)
    longest: int | None = field(None, "Answers with more lose score (length).", ge=0)
    unit: Literal["characters", "words", "tokens"] = field("words", "What length counts.")
    tests: str = field(
        "tests",
        "The column of each row's tests: Python with assert, run after the answer's code, or a list of {input, output} (code_tests).",
        max_length=100,
    )
    every_test: bool = field(False, "Code has to pass every test; otherwise the share that it passes counts (code_tests).")
    seconds: float = field(5.0, "The longest that a program may run (code_tests, python).", gt=0, le=120, unit="seconds")
    rubric: str = field("", "What a good answer is, in words (judge).", max_length=20_000)
    question: str = field(
        REWARD_QUESTION, "What a model is asked that isn't trained as a reward model; its score is the log-odds of yes (reward_model).",
        min_length=1, max_length=1000,
    )  # fmt: skip
    model: str = field("", "The judge's or the reward model's name: a model of yours, or what the judge's server calls it.", max_length=400)
    url: str = field("", "The judge's server, if it isn't a model of yours: any that speaks OpenAI's API, up to /v1.", max_length=400)
    code: str = field(
        "", "Your own function: def reward(prompt, answer, expected, row) -> a number (python). It runs shut off from everything.",
        max_length=50_000,
    )  # fmt: skip

    @model_validator(mode="after")
    def _whole_kind(self) -> RewardPart:
        missing = {
            "regex": ("pattern", self.pattern),
            "json_schema": ("form", self.form),
            "judge": ("rubric and model", self.rubric.strip() and self.model),
            "reward_model": ("model", self.model),
            "python": ("code", self.code),
            "length": ("shortest or longest", self.shortest is not None or self.longest is not None),
        }
        if self.kind in missing and not missing[self.kind][1]:
            raise ValueError(f"a reward of the kind {self.kind} needs {missing[self.kind][0]}")
        if self.kind == "regex":
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"the regular expression can't be read: {error}") from error
        if self.kind == "length" and None not in (self.shortest, self.longest) and self.shortest > self.longest:
            raise ValueError("shortest is longer than longest")
        return self


class Reward(Part):
    """What a good answer is, as numbers: a weighted sum of parts (reward)."""

    of_methods: ClassVar[tuple[str, ...]] = ("rl",)

    parts: tuple[RewardPart, ...] = field(
        (RewardPart(),), "What answers are scored by, each with its weight; the score is the weighted sum.", min_length=1, max_length=16
    )


class RewardModel(Part):
    """A model that learns to score answers from pairs of a better and a worse one (reward model)."""

    of_methods: ClassVar[tuple[str, ...]] = ("reward_model", "rlhf")

    steps: int | None = field(None, "Updates of the reward model; empty goes through the pairs once, with rlhf only.", unit="steps", ge=1)
    learning_rate: float | None = field(None, "The reward model's learning rate; empty takes that of training, with rlhf only.", gt=0, le=1)
    question: str = field(
        REWARD_QUESTION,
        "What the reward model is asked after each answer; its score is the log-odds of yes.",
        min_length=1,
        max_length=1000,
    )
    least_accuracy: float = field(
        0.6,
        "Below this share of held-out pairs ranked rightly, the run asks before it goes on to the policy.",
        ge=0,
        le=1,
        healthy=(0.6, 0.8),
    )
    go_on: bool = field(False, "Go on to the policy even if the reward model ranks fewer pairs rightly than that.")


class Distill(Part):
    """Learning from another model (distillation)."""

    of_methods: ClassVar[tuple[str, ...]] = ("distill",)

    kind: Literal["prompt", "answers", "on_policy"] = field(
        "prompt",
        "prompt: do without a long prompt what the teacher does with it (prompt distillation); answers: learn the teacher's answers "
        "(off-policy); on_policy: the student answers and the teacher says how likely it finds each token (on-policy).",
    )
    teacher: str = field(
        "", "Who teaches: a model of yours, a base model, or what its server calls it; empty is the model that the run starts from.",
        max_length=400,
    )  # fmt: skip
    teacher_url: str = field(
        "", "The teacher's server, if it isn't where the run is: any that speaks OpenAI's API, up to /v1.", max_length=400
    )
    teacher_prompt: str = field("", "What only the teacher is told, before each conversation (system prompt).", max_length=200_000)
    samples: int = field(1, "How many answers the teacher gives to each prompt (prompt, answers).", unit="answers", ge=1, le=64)
    group_size: int = field(4, "How many answers the student tries for each prompt (on_policy).", unit="answers", ge=1, le=256)
    temperature: float = field(1.0, "How freely answers are drawn (temperature).", ge=0, le=2, healthy=(0.3, 1.2))
    max_new_tokens: int = field(64, "The longest answer.", unit="tokens", ge=1, le=32_768)


class OwnLoss(Part):
    """Your own way of weighing tokens, in Python (custom loss)."""

    of_methods: ClassVar[tuple[str, ...]] = ("own_loss",)

    code: str = field(
        "",
        "Your function: def loss(logprobs, weights, row) -> a number, made of logprobs by arithmetic and exp, log, sqrt, tanh, sigmoid, "
        "log_sigmoid. It runs shut off from everything.",
        max_length=50_000,
    )  # fmt: skip
