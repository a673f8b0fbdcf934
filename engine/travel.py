"""`engine.travel`: one prompt, answered by the base model and by every checkpoint of a run, in the order they were made.

Through the server's OpenAI-compatible HTTP, so that whoever asks needs neither the SDK nor torch; while the run goes on or long
after it. The server speaks to each checkpoint as it was trained. Keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from engine import endpoints, models
from engine.errors import EndpointError, StateError
from engine.store import Checkpoint, Job, Store

_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Stop:
    """What the run answered after `step` updates; 0 is the base model."""

    step: int
    answer: str


class Travel:
    """The runs of one owner, asked again at every saved step."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def stops(self, job_id: str) -> list[int]:
        """The steps that can be asked: 0 for the base model, and every checkpoint for use."""
        return [0, *(checkpoint.step for checkpoint in self._checkpoints(self._job(job_id)))]

    def ask(self, job_id: str, prompt: str, *, max_tokens: int = 64, say: Callable[[str], None] = lambda text: None) -> Iterator[Stop]:
        """The answers, one by one as they come, greedy. `say` hears what is waited for. Raises EngineError."""
        job = self._job(job_id)
        prompt = prompt.strip()
        if not prompt:
            raise StateError("there is nothing to answer", "Type a prompt first.")
        checkpoints = self._checkpoints(job)
        if not checkpoints:
            raise StateError(f"{job.name} has no checkpoint yet", "One is saved now and then, and at the end.", where=f"job {job.id}")
        say("waking the model")
        endpoint = endpoints.start(job.endpoint, job.base_model, _folder(job), self._owner)
        endpoint.ready(say)
        names = [(0, endpoint.base_model), *((checkpoint.step, checkpoint.path) for checkpoint in checkpoints)]
        headers = {"Authorization": f"Bearer {endpoint.key()}"}
        with httpx.Client(base_url=endpoint.chat_url, headers=headers, timeout=_TIMEOUT_S, trust_env=False) as client:
            for step, name in names:
                say(f"asking step {step:,}" if step else "asking the base model")
                yield Stop(step, _answer(client, name, job, prompt, max_tokens, base=step == 0))

    def _job(self, job_id: str) -> Job:
        return self._store.find_job(job_id, self._owner)

    def _checkpoints(self, job: Job) -> list[Checkpoint]:
        """One a step, the latest; step 0 is the base model anyhow."""
        found = self._store.checkpoints(job.id, "sampler_weights", self._owner)
        return [checkpoint for _, checkpoint in sorted({c.step: c for c in found if c.step > 0}.items())]


def _folder(job: Job) -> Path:
    return models.resolve(job.base_model, weights=endpoints.kind(job.endpoint, job.owner).weights)


def _answer(client: httpx.Client, model: str, job: Job, prompt: str, max_tokens: int, *, base: bool) -> str:
    recipe = job.recipe
    messages = [{"role": "user", "content": prompt}]
    if base and recipe.system_prompt:
        messages.insert(0, {"role": "system", "content": recipe.system_prompt})
    body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0.0, "seed": 0}
    if recipe.stop:
        body["stop"] = list(recipe.stop)[:4]
    try:
        reply = client.post("/chat/completions", json=body)
        values = reply.json()
    except (httpx.HTTPError, ValueError) as error:
        advice = "Try again; if it stays, look at the server's log in the data directory."
        raise EndpointError(f"the model didn't answer: {type(error).__name__}", advice, where=f"job {job.id}") from error
    if reply.status_code != 200:
        said = (values.get("error") or {}).get("message") if isinstance(values, dict) else None
        advice = "A checkpoint that was deleted or has run out can't be asked any more; train again to have them anew."
        raise EndpointError(said or f"the server answered {reply.status_code}", advice, where=f"job {job.id}")
    return values["choices"][0]["message"]["content"] or ""
