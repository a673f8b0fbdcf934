"""`engine.rewards`: what answers can be scored by, and a test run of a reward, or of the proof's judge, before a run spends anything on it.

A test run scores rows' own answers (and, for contrast, those of other rows), answers that were typed, or answers drawn now from the
model that the run would start from, and says whether there is anything in the scores to learn from. Knows no screen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from statistics import fmean, pstdev
from typing import Any, Literal

from engine import guard, knowledge, models, policy, recipe, starts
from engine.data import load_data, read_examples
from engine.data import source as source_of
from engine.data.examples import DataSet, Example
from engine.errors import DataError, RecipeError
from engine.judges import Judges
from engine.library import Library
from engine.recipe import OF_STAGE, Recipe
from engine.recipe.methods import REWARDS, Reward, RewardPart
from engine.rendering import load_tokenizer
from engine.store import Store
from engine.training.rewards import Rollout, Score, make_reward
from engine.training.rewards.asking import Asker

Source = Literal["expected", "typed", "sampled"]
OWN, OTHER, TYPED, DRAWN = "its own answer", "another row's answer", "typed", "drawn from the model"
_MOST_ROWS, _MOST_TRIES = 100, 16
_BINS = 20
_LOOKED_AT = 200
_FLAT = 1e-9
_DEAD_SHARE = 0.8
_SLOW_SECONDS = 60.0
_JUDGE = "recipe evaluation.judge"


@dataclass(frozen=True)
class RewardKind:
    """What a kind of reward is. `fields` are those of a part that it reads: {name, help, unit, default, kind, choices, optional}.

    `needs` is "sandbox", "model" or empty; `allowed`: it may be used by this owner here.
    """

    name: str
    title: str
    icon: str
    meaning: str
    use_when: str
    pitfalls: tuple[str, ...]
    fields: tuple[dict[str, Any], ...]
    needs: str
    example: dict[str, Any]
    allowed: bool = True


@dataclass(frozen=True)
class Scored:
    """One answer and its score; `source` says where the answer is from."""

    row: int
    prompt: str
    expected: str
    answer: str
    source: str
    score: Score
    tokens: int = 0
    cut_off: bool = False


@dataclass(frozen=True)
class RewardCheck:
    """What came of a test run. `bins` are {low, high, count}; `seconds` are those of scoring alone.

    `step_seconds`: what scoring a step of the recipe (of a judge: both sides of the proof) would take at this pace, after what is paid
    once. Empty `warnings` are good news.
    """

    scored: tuple[Scored, ...]
    mean: float
    spread: float
    lowest: float
    highest: float
    bins: tuple[dict[str, float], ...]
    seconds: float
    step_seconds: float
    calls: int
    tokens: int
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _Use:
    """What is tried: these parts, of answers of at most `longest` tokens, `answers` of them at a time. `field` is where they stand."""

    parts: tuple[RewardPart, ...]
    field: str
    longest: int
    length_field: str
    answers: int


class Rewards:
    """One owner's."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def kinds(self) -> dict[str, RewardKind]:
        """Every kind by name, in the order to show."""
        told, known = knowledge.rewards(), {one["name"]: one for one in recipe.fields(RewardPart)}
        shared = policy.of(self._owner).shared
        found = {}
        for name in REWARDS:
            entry = told[name]
            reads = tuple(known[one] for one in entry["reads"] if not (shared and one == "url"))
            about = (entry["title"], entry["icon"], entry["meaning"], entry["use_when"], tuple(entry["pitfalls"]))
            allowed = not (shared and name in guard.OWN_CODE)
            found[name] = RewardKind(name, *about, reads, entry.get("needs", ""), entry["example"], allowed)
        return found

    def check(
        self,
        changes: dict[str, Any],
        *,
        rows: int = 8,
        answers: Sequence[str] = (),
        source: Source = "expected",
        tries: int = 4,
        judge: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> RewardCheck:
        """Test-runs the reward of a recipe's plain values on so many rows of its data; with `judge` instead who tells wins in its proof
        (evaluation.judge). `answers` are for `typed`, one for each of the first rows; `tries` are drawn for each row with `sampled`.
        Raises EngineError for what would end a run too."""
        asked = self._recipe(changes)
        say("reading the data")
        data = load_data(asked, skills=False)
        use = _judging(asked, data) if judge else _rewarding(asked)
        examples = _rows(data, len(answers) if source == "typed" else rows)
        asker = Asker(self._store, self._owner, asked.endpoint)
        if source == "sampled":
            tried = self._drawn(asked, asker, examples, max(1, min(tries, _MOST_TRIES)), use.longest, say)
            asker.asked.calls = asker.asked.prompt_tokens = asker.asked.completion_tokens = 0
        else:
            tokens = _counter(asked)
            tried = _typed(examples, answers, tokens) if source == "typed" else _own(examples, tokens)
        say(f"scoring {len(tried):,} answers")
        reward = make_reward(Reward(parts=use.parts), asker, use.field)
        began = time.monotonic()
        try:
            scores = reward.score([rollout for _, rollout, _ in tried])
        finally:
            reward.close()
        seconds = time.monotonic() - began
        scored = tuple(
            Scored(example.row, rollout.question, rollout.expected, rollout.answer, where, score, rollout.tokens, rollout.cut_off)
            for (example, rollout, where), score in zip(tried, scores, strict=True)
        )
        values = [one.score.value for one in scored]
        step = seconds / len(scored) * use.answers
        return RewardCheck(
            scored, fmean(values), pstdev(values), min(values), max(values), tuple(histogram(values)), seconds, step, asker.asked.calls,
            asker.asked.prompt_tokens + asker.asked.completion_tokens, tuple(_warnings(use, scored, source, step)),
        )  # fmt: skip

    def columns(self, changes: dict[str, Any]) -> list[str]:
        """What else the rows of the chosen data say, beside prompt and answer: the columns that a score can look at. Raises EngineError."""
        spec = Recipe.make({"data": changes.get("data") or {}}).data
        if spec.dataset:
            return list(Library(self._store, self._owner).usable(spec.dataset).stats.get("other_columns", []))
        if spec.demo:
            return list(_columns_of_demo(spec.demo))
        if not spec.path:
            return []
        guard.data(self._owner, spec)
        path, layout, mapping = source_of(spec, "prompts")
        return sorted(
            {name for example in read_examples(path, layout, mapping, "prompts").examples[:_LOOKED_AT] for name in example.columns}
        )

    def key_source(self, url: str) -> str:
        """Where the key for a judge's server is from (memory, file, environment); empty where there is none. Raises RecipeError."""
        return Judges(self._store, self._owner).key_source(url)

    def give_key(self, url: str, value: str, *, store: bool = False) -> int:
        """Takes the key for a judge's server. -> how many runs that waited for it go on. Raises EngineError."""
        return Judges(self._store, self._owner).give_key(url, value, store=store)

    def forget_key(self, url: str) -> None:
        """Drops it from memory and data directory. Raises RecipeError."""
        Judges(self._store, self._owner).forget_key(url)

    def _recipe(self, changes: dict[str, Any]) -> Recipe:
        asked = Recipe.make(starts.complete(self._store, self._owner, changes))
        guard.recipe(self._owner, asked)
        if asked.data.dataset:
            Library(self._store, self._owner).usable(asked.data.dataset)
        return asked

    def _drawn(
        self, asked: Recipe, asker: Asker, examples: list[Example], tries: int, longest: int, say: Callable[[str], None]
    ) -> list[tuple[Example, Rollout, str]]:
        say("waking the model")
        # Whoever can't be asked can't be trained either, so this is worth its errors.
        guard.key(self._owner, asked.endpoint)
        guard.able(self._owner, asked)
        name = asked.start.checkpoint or asked.base_model
        how: dict[str, Any] = {"max_tokens": longest, "temperature": asked.rl.temperature}
        if asked.stop:
            how["stop"] = list(asked.stop)[:4]
        say(f"drawing {len(examples) * tries:,} answers")
        groups = asker.tries(name, [example.prompt for example in examples], tries, how)
        return [
            (example, _rollout(example, one.text, one.tokens, one.cut_off), DRAWN)
            for example, group in zip(examples, groups, strict=True)
            for one in group
        ]


def _rewarding(asked: Recipe) -> _Use:
    parts = asked.reward.parts
    if any(part.model.startswith(OF_STAGE) for part in parts):
        advice = "Test-run the other parts alone, or name a reward model that is trained already."
        raise RecipeError("this reward model is trained by an earlier stage of the run, so there is none yet", advice, where="reward")
    return _Use(parts, "recipe reward.parts", asked.rl.max_new_tokens, "rl.max_new_tokens", asked.training.batch_size * asked.rl.group_size)


def _judging(asked: Recipe, data: DataSet) -> _Use:
    """Both sides' answers to all held-out prompts are judged; by the right answers where nobody is named."""
    parts, longest = asked.evaluation.judge or (RewardPart(),), asked.evaluation.max_new_tokens
    return _Use(parts, _JUDGE, longest, "evaluation.max_new_tokens", 2 * len(data.held_out))


def _rows(data: DataSet, count: int) -> list[Example]:
    """Rows from all over the data, the same each time."""
    tasks = [example for example in data.train if example.kind == "task"]
    if not tasks:
        raise DataError("there are no rows to try it on", "Choose data that has some.", where=data.name)
    count = max(1, min(count, _MOST_ROWS, len(tasks)))
    return [tasks[number * len(tasks) // count] for number in range(count)]


@cache
def _columns_of_demo(name: str) -> tuple[str, ...]:
    rows = load_data(Recipe.make({"method": "rl", "data": {"demo": name}}), skills=False).train
    return tuple(sorted({column for example in rows[:_LOOKED_AT] for column in example.columns}))


def histogram(values: Sequence[float]) -> list[dict[str, float]]:
    """{low, high, count} over the values' range; one bin where all are the same."""
    low, high = min(values), max(values)
    if high - low <= _FLAT:
        return [{"low": low - 0.5, "high": low + 0.5, "count": len(values)}]
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((value - low) / (high - low) * _BINS))] += 1
    width = (high - low) / _BINS
    return [{"low": low + n * width, "high": low + (n + 1) * width, "count": count} for n, count in enumerate(counts)]


def _counter(asked: Recipe) -> Callable[[str], int]:
    """How long a text is in the model's tokens, by a guess where its tokenizer isn't at hand: a word is about one and a third."""
    if asked.base_model != "nano" and models.at_hand(asked.base_model) is None:
        return lambda text: round(len(text.split()) * 4 / 3)
    tokenizer = load_tokenizer(models.resolve(asked.base_model, weights=False))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def _own(examples: Sequence[Example], tokens: Callable[[str], int]) -> list[tuple[Example, Rollout, str]]:
    """Each row's own answer, and another's: a reward that can't tell them apart teaches nothing."""
    answered = [example for example in examples if example.answer.strip()]
    if not answered:
        raise DataError(
            "the rows have no answers of their own to score", "Type some answers, or draw them from the model.", where="answers"
        )
    found = [(example, _rollout(example, example.answer, tokens(example.answer)), OWN) for example in answered]
    for place, example in enumerate(answered):
        others = [one.answer for one in (*answered[place + 1 :], *answered[:place]) if one.answer.strip() != example.answer.strip()]
        if others:
            found.append((example, _rollout(example, others[0], tokens(others[0])), OTHER))
    return found


def _typed(examples: Sequence[Example], answers: Sequence[str], tokens: Callable[[str], int]) -> list[tuple[Example, Rollout, str]]:
    if not answers:
        raise RecipeError("there are no answers to score", "Type one at least.", where="answers")
    return [(example, _rollout(example, answer, tokens(answer)), TYPED) for example, answer in zip(examples, answers, strict=False)]


def _rollout(example: Example, answer: str, tokens: int, cut_off: bool = False) -> Rollout:
    return Rollout(example.prompt, answer, example.answer, example.columns, tokens, cut_off)


def _warnings(use: _Use, scored: Sequence[Scored], source: Source, step_seconds: float) -> list[str]:
    """What would keep a run from learning by these scores, or a judge from telling who wins."""
    found, judges = [], use.field == _JUDGE
    values = [one.score.value for one in scored]
    flat = max(values) - min(values) <= _FLAT
    if failed := [one for one in scored if one.score.failed]:
        found.append(f"{len(failed):,} of {len(scored):,} answers couldn't be scored and count 0: {failed[0].score.note}")
    if flat and len(values) > 1:
        what = "the most that there is" if abs(values[0] - _most(use.parts)) <= _FLAT else f"{values[0]:.3g}"
        so = "no answer would win over another" if judges else "there is nothing to learn from"
        found.append(f"Every answer scores {what}, so {so}: what is better has to score more.")
    if len(use.parts) > 1 and not flat:
        for label in scored[0].score.parts:
            said = [one.score.parts[label] for one in scored]
            if max(said) - min(said) <= _FLAT:
                found.append(f"The part {label} scores every answer {said[0]:.3g}, so it changes nothing.")
    if source == "expected" and not flat:
        own, other = ([one.score.value for one in scored if one.source == where] for where in (OWN, OTHER))
        if other and fmean(own) <= fmean(other):
            found.append(
                f"Right answers score {fmean(own):.3g} on average, wrong ones {fmean(other):.3g}: "
                f"this {'judge' if judges else 'reward'} can't tell them apart."
            )
    if source == "sampled" and not flat and not judges:
        groups = [[one.score.value for one in group] for _, group in groupby(scored, key=lambda one: one.row)]
        dead = sum(max(group) - min(group) <= _FLAT for group in groups if len(group) > 1)
        if len(groups) > 1 and dead / len(groups) > _DEAD_SHARE:
            found.append(
                f"For {dead} of {len(groups)} prompts all answers score the same; only prompts with better and worse answers teach. "
                "Give a score for being near, take easier prompts, or train on examples first."
            )
    if source == "sampled" and not flat and (cut := sum(one.cut_off for one in scored)) > 0.3 * len(scored):
        found.append(f"{cut} of {len(scored)} answers were cut off at {use.longest} tokens; raise {use.length_field}.")
    if step_seconds > _SLOW_SECONDS:
        of = "both sides of the proof" if judges else "one step"
        found.append(f"Scoring the {use.answers:,} answers of {of} would take about {step_seconds:,.0f} seconds at this pace.")
    return found


def _most(parts: Sequence[RewardPart]) -> float:
    """The highest score of parts that go from 0 to 1."""
    return sum(part.weight for part in parts if part.weight > 0)
