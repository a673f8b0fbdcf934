"""Distillation: a student learns from a teacher, which may be itself with a long prompt that the student is to do without.

    prompt, answers   the teacher answers the prompts once, in bulk; its answers are kept in the run's folder and learned as examples
                      (Askell et al. 2021, arXiv:2112.00861; Snell et al. 2022, arXiv:2209.15189)
    on_policy         the student answers, and each of its tokens costs what the teacher finds it less likely than the student did:
                      A_t = -(log p_student - log p_teacher), a reverse KL divergence by policy gradient
                      (Agarwal et al. 2023, arXiv:2306.13649; Lu et al. 2025, On-Policy Distillation)

The teacher alone is told `teacher_prompt`. The student never sees it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from engine.data.examples import DataSet, Example, Message
from engine.errors import DataError, RecipeError
from engine.evaluation.metrics import exact_match
from engine.recipe import Recipe
from engine.rendering import Rendered, Renderer
from engine.store.artefacts import write_bytes_atomic
from engine.training import rollouts
from engine.training.answers import answer
from engine.training.desk import Desk, datum
from engine.training.methods import Base, Ticket
from engine.training.reach import Reach, Voice
from engine.training.rollouts import WATCHED_PROMPTS, Drawing, Group
from engine.training.rows import counts, datums, last_answer, named
from engine.training.schedule import order


def make(recipe: Recipe, data: DataSet, renderer: Renderer, context: int) -> Base:
    """The kind of distillation that the recipe names. Raises RecipeError and DataError."""
    spec = recipe.distill
    if spec.kind == "prompt" and not spec.teacher_prompt:
        raise RecipeError(
            "the student is to do without a prompt, and none is given",
            "Write what the teacher is told.",
            where="recipe distill.teacher_prompt",
        )
    if spec.kind != "prompt" and not (spec.teacher or spec.teacher_prompt):
        raise RecipeError("the teacher would be the student itself", "Name a teacher, or give it a prompt.", where="recipe distill.teacher")
    if spec.kind == "on_policy" and spec.teacher_url:
        raise RecipeError(
            "learning on the student's own answers needs a teacher that says how likely it finds each of the student's tokens",
            "Take a model of yours or a base model as the teacher, or choose answers.",
            where="recipe distill.teacher_url",
        )
    return (OnPolicy if spec.kind == "on_policy" else Answers)(recipe, data, renderer, context)


class _Taught(Base):
    """What both kinds have in common: prompts that fit, a teacher, and how well the student agrees with it."""

    def __init__(self, recipe: Recipe, data: DataSet, renderer: Renderer, context: int):
        self._recipe, self._spec, self._renderer, self._context = recipe, recipe.distill, renderer, context
        self.notes: list[str] = list(data.notes)
        tasks = [example for example in data.train if example.kind == "task"]
        self._prompts = [example for example in tasks if self._fits(example)]
        self._held_out = [example for example in data.held_out if self._fits(example)]
        if lost := [example for example in (*tasks, *data.held_out) if not self._fits(example)]:
            self.notes.append(f"{len(lost):,} prompts were left out: with an answer they don't fit {context:,} tokens: {named(lost)}")
        if not self._prompts:
            raise DataError("no prompt leaves room for an answer", "Lower distill.max_new_tokens, or shorten the prompts.", where=data.name)
        self._reach: Reach | None = None
        self._surest: dict[str, str] = {}

    def attach(self, desk: Desk, step: int) -> None:
        super().attach(desk, step)
        self.close()
        self._reach = Reach(desk)

    def close(self) -> None:
        if self._reach is not None:
            self._reach.close()
            self._reach = None

    def score(self, examples: list[Example], answers: list[str]) -> dict[str, float]:
        """How often the student says what the teacher says when it is surest, and how often the teacher is right itself."""
        known = [
            (example, said, self._surest[key])
            for example, said in zip(examples, answers, strict=True)
            if (key := _key(example)) in self._surest
        ]
        if not known:
            return {}
        found = {"agreement": fmean(said.strip() == taught.strip() for _, said, taught in known)}
        judged = [(example, taught) for example, _, taught in known if example.answer]
        if judged:
            found["teacher_exact_match"] = fmean(exact_match(taught, example.answer) for example, taught in judged)
        return found

    def _teacher(self) -> Voice:
        return self._reach.voice(self._spec.teacher)

    def _told(self, messages: Sequence[Message]) -> list[Message]:
        """As the teacher sees it: its own prompt instead of any system message."""
        rest = [message for message in messages if message["role"] != "system"]
        if not self._spec.teacher_prompt:
            return list(messages)
        return [{"role": "system", "content": self._spec.teacher_prompt}, *rest]

    def _fits(self, example: Example) -> bool:
        longest = max(len(self._renderer.prompt(said)) for said in (example.prompt, self._told(example.prompt)))
        return longest + self._spec.max_new_tokens <= self._context

    def _ask_surest(self) -> None:
        """The teacher's greedy answers to the held-out prompts: what the student is measured by."""
        self._surest = self._kept("teacher.held_out.jsonl", self._held_out, 1, 0.0)

    def _kept(self, name: str, examples: Sequence[Example], samples: int, temperature: float) -> Any:
        """{prompt: answer} for one sample, {prompt: answers} for more; from the run's folder where it has been asked before."""
        file = self._desk.folder / f"{self._desk.number + 1}.{name}"
        known: dict[str, list[str]] = {}
        if file.exists():
            known = {row["prompt"]: row["answers"] for row in map(json.loads, file.read_text(encoding="utf-8").splitlines())}
        missing = [example for example in examples if _key(example) not in known]
        if missing:
            self._desk.run.stage(f"the teacher answers {len(missing) * samples:,} prompts")
            known |= self._asked(missing, samples, temperature)
            rows = [json.dumps({"prompt": prompt, "answers": answers}, ensure_ascii=False) for prompt, answers in known.items()]
            write_bytes_atomic(file, "".join(row + "\n" for row in rows).encode("utf-8", "replace"))
        return {prompt: answers[0] for prompt, answers in known.items()} if samples == 1 else known

    def _asked(self, examples: Sequence[Example], samples: int, temperature: float) -> dict[str, list[str]]:
        spec, prompts = self._spec, [self._told(example.prompt) for example in examples]
        found: list[list[str]] = [[] for _ in examples]
        for number in range(samples):
            seed = rollouts.seed_of(self._recipe.seed, self._desk.number, number)
            if spec.teacher_url:
                said = self._reach.ask(spec.teacher, spec.teacher_url, prompts, max_tokens=spec.max_new_tokens, temperature=temperature)
            else:
                voice = self._teacher()
                how = {"max_tokens": spec.max_new_tokens, "stop": self._recipe.stop, "temperature": temperature, "seed": seed}
                said = answer(voice.client, voice.sampler, voice.renderer, prompts, **how)
            for row, text in zip(found, said, strict=True):
                row.append(text)
        return {_key(example): row for example, row in zip(examples, found, strict=True)}


class Answers(_Taught):
    """The teacher's answers as examples (off-policy)."""

    watched = "held_out_loss"

    def __init__(self, recipe: Recipe, data: DataSet, renderer: Renderer, context: int):
        super().__init__(recipe, data, renderer, context)
        self._lessons = [(example, number) for example in self._prompts for number in range(self._spec.samples)]
        lengths = [len(renderer.prompt(example.prompt)) for example, _ in self._lessons]
        self.order = order(recipe, [example for example, _ in self._lessons], lengths)
        self.rows = self.order.rows
        self._rendered: dict[int, Rendered] = {}

    def attach(self, desk: Desk, step: int) -> None:
        super().attach(desk, step)
        used = {row for at in range(desk.total) for row in self.order.of_step(at)}
        asked = list({id(self._lessons[row][0]): self._lessons[row][0] for row in sorted(used)}.values())
        self._ask_surest()
        said = self._kept("teacher.jsonl", asked, self._spec.samples, self._spec.temperature)
        self._taught = {prompt: [one] if isinstance(one, str) else one for prompt, one in said.items()}
        self._checks = [self._row(example, self._surest[_key(example)]) for example in self._held_out]

    def submit(self, step: int, rate: float) -> Ticket:
        rows = [self._lesson(row) for row in self.order.of_step(step)]
        return Ticket([self._desk.forward_backward(datums(rows), "cross_entropy")], [self._desk.optim_step(rate)], counts(rows))

    def metrics(self, replies: list[Any], ticket: Ticket) -> dict[str, float]:
        return {"train_loss": replies[0].metrics["loss:sum"]}

    def measure(self) -> dict[str, float]:
        if not self._checks:
            return {}
        reply = self._desk.wait(self._desk.forward(datums(self._checks)), "measuring the held-out loss")
        return {"held_out_loss": reply.metrics["loss:sum"]}

    def _lesson(self, row: int) -> Rendered:
        if row not in self._rendered:
            example, number = self._lessons[row]
            self._rendered[row] = self._row(example, self._taught[_key(example)][number])
        return self._rendered[row]

    def _row(self, example: Example, text: str) -> Rendered:
        return last_answer([*example.prompt, {"role": "assistant", "content": text}], self._renderer, self._context)


class OnPolicy(_Taught):
    """The student's own answers, judged token by token (on-policy)."""

    watched = "held_out_teacher_kl"

    def __init__(self, recipe: Recipe, data: DataSet, renderer: Renderer, context: int):
        super().__init__(recipe, data, renderer, context)
        self.order = order(recipe, self._prompts, [len(renderer.prompt(example.prompt)) for example in self._prompts])
        self.rows = self.order.rows

    def attach(self, desk: Desk, step: int) -> None:
        super().attach(desk, step)
        self._voice = self._teacher()
        self._reach.must_share_tokens(self._voice)
        self._ask_surest()

    def submit(self, step: int, rate: float) -> Ticket:
        examples = [self._prompts[row] for row in self.order.of_step(step)]
        groups = rollouts.collect(self._desk, self._draw(examples, self._spec.group_size, step, self._spec.temperature))
        gaps = self._gaps(groups)
        tries = [(group, one) for group in groups for one in group.tries]
        share = 1.0 / max(1, sum(len(row) for row in gaps))
        rows = []
        for (group, one), row in zip(tries, gaps, strict=True):
            nothing = [0.0] * len(group.prompt)
            rows.append(
                datum(group.prompt + one.tokens, advantages=nothing + [-gap * share for gap in row], logprobs=nothing + one.logprobs)
            )
        gradients, update = self._desk.forward_backward(rows, "importance_sampling"), self._desk.optim_step(rate)
        tokens = sum(len(group.prompt) + len(one.tokens) for group, one in tries)
        known = _numbers(groups, gaps)
        return Ticket([gradients], [update], {"tokens": float(tokens), "targets": float(sum(len(row) for row in gaps))}, known)

    def metrics(self, replies: list[Any], ticket: Ticket) -> dict[str, float]:
        return {}

    def measure(self) -> dict[str, float]:
        asked = self._held_out[:WATCHED_PROMPTS]
        if not asked:
            return {}
        groups = rollouts.collect(self._desk, self._draw(asked, 1, -1, self._spec.temperature))
        return {f"held_out_{name}": value for name, value in _numbers(groups, self._gaps(groups)).items() if name == "teacher_kl"}

    def _draw(self, examples: Sequence[Example], count: int, step: int, temperature: float) -> Drawing:
        prompts = [self._renderer.prompt(example.prompt) for example in examples]
        how = {"step": step, "temperature": temperature, "most": self._spec.max_new_tokens}
        return rollouts.draw(self._desk, self._desk.snapshot(), examples, prompts, count, **how)

    def _gaps(self, groups: Sequence[Group]) -> list[list[float]]:
        """For each answer's tokens, by how much likelier the student found them than the teacher does (nats)."""
        asked, tries = [], []
        for group in groups:
            told = self._voice.renderer.prompt(self._told(group.example.prompt))
            asked += [(told + one.tokens, len(told)) for one in group.tries]
            tries += group.tries
        found = self._voice.likely(asked, "asking the teacher")
        return [[p - t for p, t in zip(one.logprobs, row, strict=True)] for one, row in zip(tries, found, strict=True)]


def _numbers(groups: Sequence[Group], gaps: Sequence[Sequence[float]]) -> dict[str, float]:
    tries = [one for group in groups for one in group.tries]
    flat = [gap for row in gaps for gap in row]
    drawn = [p for one in tries for p in one.logprobs]
    return {
        "teacher_kl": fmean(flat) if flat else 0.0,
        "entropy": -fmean(drawn) if drawn else 0.0,
        "answer_length": fmean(len(one.tokens) for one in tries),
        "cut_off_share": fmean(one.cut_off for one in tries),
    }


def _key(example: Example) -> str:
    return json.dumps(example.prompt, ensure_ascii=False, sort_keys=True)
