"""Reinforcement learning with verifiable scores (GRPO and its kin): try out answers, make those likelier that beat their group.

Each step draws a group of answers to every prompt of its batch, all at once, scores them, and sends each token's advantage with the
log-probability it was drawn with; the loss (importance_sampling, ppo or cispo) is the endpoint's. Advantages are divided by the
number of tokens that are learned from, so that an update means the same however long answers are. With `ahead`, the next step's
answers are drawn, from weights that are one update old, while this step's are learned from.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from engine.data.examples import DataSet, Example
from engine.errors import DataError
from engine.recipe import Recipe
from engine.rendering import Renderer
from engine.training import rollouts
from engine.training.advantages import clipped_share, group_advantages, is_flat, kl_advantages
from engine.training.answers import answer
from engine.training.desk import Desk, datum, logprobs_of
from engine.training.methods import Base, Ticket
from engine.training.reach import Reach
from engine.training.rewards import Grade, Reward, Rollout, Score, make_reward, needs_endpoint, wanted
from engine.training.rollouts import WATCHED_PROMPTS, Drawing, Group
from engine.training.rows import named
from engine.training.schedule import order


@dataclass(frozen=True)
class _Row:
    """An answer to learn from: all tokens, and for each one's advantage and the log-probability it was drawn with (0 for the prompt)."""

    tokens: list[int]
    advantages: list[float]
    logprobs: list[float]


class RL(Base):
    """One recipe's prompts, tries and updates."""

    watched, better = "held_out_reward", "up"

    def __init__(self, recipe: Recipe, data: DataSet, renderer: Renderer, context: int):
        self._recipe, self._spec, self._renderer = recipe, recipe.rl, renderer
        self.notes: list[str] = list(data.notes)
        room = context - self._spec.max_new_tokens
        tasks = [example for example in data.train if example.kind == "task"]
        known = [(example, renderer.prompt(example.prompt)) for example in tasks]
        self._prompts = [(example, tokens) for example, tokens in known if len(tokens) <= room]
        self._held_out = [example for example in data.held_out if len(renderer.prompt(example.prompt)) <= room]
        if lost := [example for example in (*tasks, *data.held_out) if len(renderer.prompt(example.prompt)) > room]:
            about = f"with {self._spec.max_new_tokens:,} tokens to answer they don't fit {context:,}: {named(lost)}"
            self.notes.append(f"{len(lost):,} prompts were left out: {about}")
        self.notes += _without_reference(recipe, [example for example, _ in self._prompts])
        if not self._prompts:
            raise DataError("no prompt leaves room for an answer", "Lower rl.max_new_tokens, or shorten the prompts.", where=data.name)
        self.order = order(recipe, [example for example, _ in self._prompts], [len(tokens) for _, tokens in self._prompts])
        self.rows = self.order.rows
        self._reward: Reward | None = None
        self._reach: Reach | None = None
        self._ahead: dict[int, Drawing] = {}
        self._kl: float | None = None

    def attach(self, desk: Desk, step: int) -> None:
        super().attach(desk, step)
        self._ahead = {}
        self.close()
        self._reach = Reach(desk)
        self._reward = make_reward(self._recipe.reward, self._reach)

    def submit(self, step: int, rate: float) -> Ticket:
        began = time.monotonic()
        drawing = self._ahead.pop(step, None)
        if drawing is None:
            drawing = self._draw(step, self._desk.snapshot())
        if self._spec.ahead and step + 1 < self._desk.total:
            self._ahead = {step + 1: self._draw(step + 1, self._desk.snapshot())}
        groups = rollouts.collect(self._desk, drawing)
        drawn = time.monotonic()
        scores = self._scored(groups)
        rollouts.show(self._desk.folder, self._desk.began + step + 1, groups, scores)
        scored = time.monotonic()
        rows = self._rows(groups, [[score.value for score in row] for row in scores])
        gradients, updates = self._send(rows, rate)
        numbers = self._numbers(groups, scores) | {"sampling_seconds": drawn - began, "scoring_seconds": scored - drawn}
        tokens = sum(len(row.tokens) for row in rows)
        return Ticket(gradients, updates, {"tokens": float(tokens), "targets": float(_targets(rows))}, numbers, kept=rows)

    def metrics(self, replies: list[Any], ticket: Ticket) -> dict[str, float]:
        rows: list[_Row] = ticket.kept
        if not rows:
            return {}
        now = [value for reply in replies for values in logprobs_of(reply) for value in values]
        drawn = [value for row in rows for value in row.logprobs[1:]]
        advantages = [value for row in rows for value in row.advantages[1:]]
        gaps = [q - p for p, q, a in zip(now, drawn, advantages, strict=True) if a]
        share = clipped_share(now, drawn, advantages, self._spec.clip_low, self._spec.clip_high)
        return {"policy_kl": fmean(gaps) if gaps else 0.0, "clip_share": share}

    def measure(self) -> dict[str, float]:
        asked = self._held_out[:WATCHED_PROMPTS]
        if not asked:
            return {}
        recipe, prompts = self._recipe, [example.prompt for example in asked]
        most = self._spec.max_new_tokens
        said = answer(self._desk.client, self._desk.snapshot(), self._renderer, prompts, max_tokens=most, stop=recipe.stop, seed=0)
        return {f"held_out_{name}": value for name, value in self.score(asked, said).items()}

    def score(self, examples: list[Example], answers: list[str]) -> dict[str, float]:
        own = self._reward
        if own is None:
            if needs_endpoint(self._recipe.reward):
                return {}
            own = make_reward(self._recipe.reward, None)
        encode = self._renderer.encode
        said = [_rollout(example, text, len(encode(text)), False) for example, text in zip(examples, answers, strict=True)]
        scores = own.score(said)
        if own is not self._reward:
            own.close()
        return {"reward": fmean(score.value for score in scores)} if scores else {}

    def close(self) -> None:
        if self._reward is not None:
            self._reward.close()
            self._reward = None
        if self._reach is not None:
            self._reach.close()
            self._reach = None

    def _draw(self, step: int, sampler: Any) -> Drawing:
        picked = [self._prompts[row] for row in self.order.of_step(step)]
        spec = self._spec
        examples, prompts = [example for example, _ in picked], [tokens for _, tokens in picked]
        how = {"step": step, "temperature": spec.temperature, "most": spec.max_new_tokens}
        return rollouts.draw(self._desk, sampler, examples, prompts, spec.group_size, **how)

    def _scored(self, groups: Sequence[Group]) -> list[list[Score]]:
        flat = [_rollout(group.example, one.text, len(one.tokens), one.cut_off) for group in groups for one in group.tries]
        scores = iter(self._reward.score(flat))
        return [[next(scores) for _ in group.tries] for group in groups]

    def _rows(self, groups: Sequence[Group], scores: Sequence[Sequence[float]]) -> list[_Row]:
        """What is learned from: each answer's tokens with their advantages; prompts without any spread are left out."""
        spec, kept = self._spec, []
        for group, row in zip(groups, scores, strict=True):
            if spec.skip_flat and is_flat(row) and not spec.kl:
                continue
            kept += [(group, one, a) for one, a in zip(group.tries, group_advantages(row, spec.advantage), strict=True) if one.tokens]
        costs = [[0.0] * len(one.tokens) for _, one, _ in kept]
        if spec.kl and kept:
            costs = kl_advantages([one.logprobs for _, one, _ in kept], self._of_start([(g, one) for g, one, _ in kept]), spec.kl)
        share = 1.0 / max(1, sum(len(one.tokens) for _, one, _ in kept))
        rows = []
        for (group, one, advantage), cost in zip(kept, costs, strict=True):
            nothing = [0.0] * len(group.prompt)
            rows.append(_Row(group.prompt + one.tokens, nothing + [(advantage + c) * share for c in cost], nothing + one.logprobs))
        return rows

    def _of_start(self, tries: Sequence[tuple[Group, Any]]) -> list[list[float]]:
        """How likely the model that the stage began with finds each answer, token by token."""
        asked = [(group.prompt + one.tokens, len(group.prompt)) for group, one in tries]
        found = self._reach.voice("").likely(asked, "asking the model that it started from")
        self._kl = fmean(p - p0 for (_, one), row in zip(tries, found, strict=True) for p, p0 in zip(one.logprobs, row, strict=True))
        return found

    def _send(self, rows: Sequence[_Row], rate: float) -> tuple[list[Any], list[Any]]:
        """One update from all rows, or several from a share each."""
        spec, gradients, updates = self._spec, [], []
        config = None
        if spec.loss != "importance_sampling":
            config = {"clip_low_threshold": 1 - spec.clip_low, "clip_high_threshold": 1 + spec.clip_high}
        count = min(spec.updates, len(rows))
        for part in range(count):
            share = rows[part * len(rows) // count : (part + 1) * len(rows) // count]
            # Each update sees a share of the tokens, and weighs as much as one that sees them all.
            datums = [datum(row.tokens, advantages=[a * count for a in row.advantages], logprobs=row.logprobs) for row in share]
            gradients.append(self._desk.forward_backward(datums, spec.loss, config))
            updates.append(self._desk.optim_step(rate))
        return gradients, updates

    def _numbers(self, groups: Sequence[Group], scores: Sequence[Sequence[Score]]) -> dict[str, float]:
        """What people watch. `entropy` is estimated from the drawn tokens: the mean of -log p (nats)."""
        values = [[score.value for score in row] for row in scores]
        flat = [value for row in values for value in row]
        tries = [one for group in groups for one in group.tries]
        tokens = [p for one in tries for p in one.logprobs]
        top = sum(part.weight for part in self._recipe.reward.parts if part.weight > 0)
        still = [row for row in values if is_flat(row)]
        solved = [row for row in still if top and row[0] >= top * 0.999]
        found = {
            "reward": fmean(flat),
            "reward_spread": fmean(stdev(row) for row in values),
            "best_of_group": fmean(max(row) for row in values),
            "solved_groups": len(solved) / len(values),
            "dead_groups": (len(still) - len(solved)) / len(values),
            "answer_length": fmean(len(one.tokens) for one in tries),
            "cut_off_share": fmean(one.cut_off for one in tries),
            "entropy": -fmean(tokens) if tokens else 0.0,
        }
        if self._spec.kl and self._kl is not None:
            found["kl"] = self._kl
        names = {name for row in scores for score in row for name in score.parts}
        if len(names) > 1:
            for name in sorted(names):
                found[f"reward/{name}"] = fmean(score.parts[name] for row in scores for score in row if name in score.parts)
        return found


def _without_reference(recipe: Recipe, examples: Sequence[Example]) -> list[str]:
    """Rows that lack what their answers are to be held against: nothing is learned from them."""
    for part in recipe.reward.parts:
        needs = part.kind in ("exact", "normalised", "numeric") or (part.kind == "contains" and not part.texts)
        lacking = [example for example in examples if needs and isinstance(wanted(_rollout(example, "", 0, False), part), Grade)]
        if lacking:
            return [f"{len(lacking):,} prompts have no right answer to hold answers against, and score 0: {named(lacking)}"]
    return []


def _rollout(example: Example, text: str, tokens: int, cut_off: bool) -> Rollout:
    return Rollout(example.prompt, text, example.answer, example.columns, tokens, cut_off)


def _targets(rows: Sequence[_Row]) -> int:
    return sum(1 for row in rows for advantage in row.advantages if advantage)
