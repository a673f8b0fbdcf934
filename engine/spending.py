"""`engine.spending`: what runs have taken of their endpoints so far, what they will come to, and what tokens cost.

Reads what runs counted themselves; counts nothing. Knows no screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine import endpoints, policy
from engine.amounts import dollars
from engine.errors import NotAllowed, RecipeError, StateError
from engine.jobs import states
from engine.knowledge import pricing
from engine.knowledge.pricing import KINDS, Price
from engine.recipe import Budget, Recipe

if TYPE_CHECKING:
    from engine.store import Job, Store

_METRICS = (*(f"{kind}_tokens" for kind in KINDS), "dollars")
LIMITS = tuple(Budget.model_fields)


@dataclass(frozen=True)
class Spent:
    """One run's. `counted`: tokens by kind; `dollars` is None where the price isn't known, `projected` where nothing can be said of it.

    `free`: nothing is charged where it runs. `budget`: its limits.
    """

    counted: dict[str, int]
    dollars: float | None
    projected: float | None
    free: bool
    budget: Budget

    @property
    def text(self) -> str:
        """In a few words; empty where there is nothing to tell."""
        if self.free or self.dollars is None:
            return ""
        soon = f", about {dollars(self.projected)} in all" if self.projected and self.projected > self.dollars * 1.005 else ""
        most = f" of at most {dollars(self.budget.max_dollars)}" if self.budget.max_dollars is not None else ""
        return f"{dollars(self.dollars)}{most}{soon}"


class Spending:
    """One owner's."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def of(self, job: Job) -> Spent:
        """What the run has taken, and will."""
        return self.of_all([job])[job.id]

    def of_all(self, jobs: Sequence[Job]) -> dict[str, Spent]:
        """{job id: what it has taken}, in one look."""
        last = self._store.last_values([job.id for job in jobs], _METRICS, self._owner) if jobs else {}
        return {job.id: self._of(job, last.get(job.id, {})) for job in jobs}

    def places(self) -> list[str]:
        """The endpoints that models can have a price at."""
        return endpoints.names(self._owner)

    def table(self) -> list[Price]:
        """Every price that is known, one's own first."""
        return pricing.table()

    def price(self, endpoint: str, listed_as: str) -> Price | None:
        """What a model costs there; None where it isn't known."""
        return pricing.find(endpoint, listed_as)

    def change(self, endpoint: str, listed_as: str, prices: Mapping[str, float] | None) -> None:
        """One's own price, {prefill, sample, train} in dollars a million tokens; None forgets it. `listed_as` is the model's name
        there, or * for all.

        Raises NotAllowed where others use this machine too, RecipeError for what is no price, StorageError.
        """
        if policy.of(self._owner).shared:
            raise NotAllowed("prices are kept for all who use this machine", "Ask whoever runs it.")
        pricing.change(endpoint, listed_as, prices)

    def raised(self, job: Job, budget: Mapping[str, Any]) -> Recipe | None:
        """The job's recipe with other limits; None where they stay as they are. Raises StateError where the run is at a limit that isn't
        raised, RecipeError for one that can't be."""
        if unknown := set(budget) - set(LIMITS):
            raise RecipeError(f"there is no limit called {min(unknown)}", f"There are: {', '.join(LIMITS)}.", where="recipe budget")
        spent_at = (job.error or {}) if (job.error or {}).get("kind") == "BudgetSpent" else {}
        if not budget:
            if spent_at:
                raise StateError(f"{job.name} is at its limit", "Give a higher one to go on.", where=f"job {job.id}")
            return None
        recipe = job.recipe.merged({"budget": dict(budget)})
        spent, new = self.of(job), recipe.budget
        if new.max_dollars is not None and spent.dollars is not None and new.max_dollars <= spent.dollars:
            raise RecipeError(
                f"the run has cost {dollars(spent.dollars)} already", "Give a higher limit.", where="recipe budget.max_dollars"
            )
        if new.max_tokens is not None and new.max_tokens <= (taken := sum(spent.counted.values())):
            raise RecipeError(f"the run has taken {taken:,} tokens already", "Give a higher limit.", where="recipe budget.max_tokens")
        if (hit := spent_at.get("where", "").removeprefix("recipe budget.")) in LIMITS:
            # It stops a step before it would go past, so what it has taken doesn't tell.
            before, after = getattr(job.recipe.budget, hit), getattr(new, hit)
            if before is not None and after is not None and after <= before:
                unit = hit.removeprefix("max_")
                raise StateError(
                    f"{job.name} is at its limit in {unit}", f"Give more than {before:,} {unit} to go on.", where=f"job {job.id}"
                )
        return recipe

    def _of(self, job: Job, last: Mapping[str, float]) -> Spent:
        price = self._price(job)
        counted = {kind: int(last.get(f"{kind}_tokens", 0)) for kind in KINDS}
        # What a finished run counted includes its proof; before, the last step's numbers do.
        counted = {kind: max(count, int(((job.result or {}).get("counted") or {}).get(kind, 0))) for kind, count in counted.items()}
        try:
            budget = job.recipe.budget
        except RecipeError:
            budget = Budget()
        amount = None
        if any(counted.values()) or (price and price.free):
            amount = (job.result or {}).get("dollars") or (price.dollars(counted) if price else None)
        return Spent(counted, amount, self._projected(job, price, amount), bool(price and price.free), budget)

    def _price(self, job: Job) -> Price | None:
        """None also where one's own prices can't be read: the settings say so, and runs can be looked at all the same."""
        with suppress(RecipeError):
            return pricing.find(job.endpoint, job.base_model)
        return None

    def _projected(self, job: Job, price: Price | None, amount: float | None) -> float | None:
        """What was spent before the first step is spent once more at the end: both sides of the proof cost about the same."""
        if price is None or amount is None or not job.step or not job.total_steps or job.state in states.FINAL:
            return None
        found = self._store.values_at(job.id, _METRICS, 0, self._owner)
        first = {kind: found.get(f"{kind}_tokens", 0.0) for kind in KINDS}
        before = price.dollars(first)
        return amount + (amount - before) / job.step * max(0, job.total_steps - job.step) + before
