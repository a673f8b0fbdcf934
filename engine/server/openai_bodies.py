"""The bodies of OpenAI's API: what is understood, what is ignored, and a clear refusal of the rest. Knows no models and no HTTP.

What would change the answer and isn't offered is refused unless it's left at its neutral value; what has no bearing on
the answer is ignored. Fields and defaults as in OpenAI's API reference; `top_k` is ours (and vLLM's).
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from engine.errors import DataError
from engine.rendering import Message

MAX_CHOICES = 128
MAX_PROMPTS = 1024
_IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
)
# name: values that change nothing, beside null.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
}
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_NO_TOOLS = "Tools aren't offered by this server: put what the tool said into a user message."


class StreamOptions(BaseModel):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Ask(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = Field(default=None, ge=0)

    @property
    def stops(self) -> list[str]:
        """As a list. Raises DataError for an empty one."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if not all(found):
            raise DataError("a stop string is empty", "Leave it out.", where="stop")
        return found

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatAsk(_Ask):
    """POST chat/completions."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    @property
    def limit(self) -> int | None:
        if self.max_tokens == 0:
            raise DataError("max_tokens has to be 1 or more", "Leave it out for the model's limit.", where="max_tokens")
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def top(self) -> int:
        """How many of the likeliest tokens are to be shown at each place."""
        if self.top_logprobs and not self.logprobs:
            raise DataError("top_logprobs needs logprobs", "Send logprobs: true as well.", where="top_logprobs")
        return self.top_logprobs or 0


class CompletionAsk(_Ask):
    """POST completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None
    best_of: int | None = None

    @property
    def limit(self) -> int:
        """OpenAI's default is 16; 0 is for looking at the prompt alone."""
        limit = 16 if self.max_tokens is None else self.max_tokens
        if limit == 0 and not self.echo:
            raise DataError("max_tokens 0 leaves nothing to answer", "Send echo: true as well, or more tokens.", where="max_tokens")
        return limit

    @property
    def prompts(self) -> list[str | list[int]]:
        """One or more, each a text or token ids."""
        if self.best_of not in (None, self.n or 1):
            raise DataError("best_of isn't offered by this server", "Ask for n, and choose.", where="best_of")
        whole = isinstance(self.prompt, str) or (bool(self.prompt) and isinstance(self.prompt[0], int))
        found: list[Any] = [self.prompt] if whole else list(self.prompt)
        if not 1 <= len(found) <= MAX_PROMPTS:
            raise DataError(f"there have to be 1 to {MAX_PROMPTS:,} prompts", "Send several requests.", where="prompt")
        if len(found) * (self.n or 1) > MAX_PROMPTS:
            raise DataError(f"prompts times n are more than {MAX_PROMPTS:,} answers", "Send several requests.", where="n")
        return found


A = TypeVar("A", ChatAsk, CompletionAsk)


def read(kind: type[A], raw: bytes) -> A:
    """Raises DataError that names the field."""
    try:
        values = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise DataError(f"the body isn't JSON: {error}", "Send a JSON object.") from error
    if not isinstance(values, dict):
        raise DataError("the body isn't a JSON object", "Send what OpenAI's clients send.")
    for name, neutral in _REFUSED.items():
        given = values.pop(name, None)
        if given is not None and given not in neutral:
            raise DataError(f"{name} isn't offered by this server", "Leave it out.", where=name)
    for name in _IGNORED:
        values.pop(name, None)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            what = f"there is no parameter called {field[:80]!r} here"
            raise DataError(what, "Leave it out, or correct its name.", where=field) from error
        raise DataError(f"{field}: {first['msg']}", "Correct it, or leave it out.", where=field) from error


def read_messages(given: list[dict[str, Any]]) -> list[Message]:
    """Roles and texts as renderers know them. Raises DataError that names the message."""
    if not given:
        raise DataError("there are no messages", "Send at least one.", where="messages")
    return [_message(message, f"messages.{place}") for place, message in enumerate(given)]


def _message(given: dict[str, Any], where: str) -> Message:
    role = given.get("role")
    if role in ("tool", "function") or given.get("tool_calls") or given.get("function_call"):
        raise DataError("the message belongs to a tool call", _NO_TOOLS, where=where)
    if not isinstance(role, str) or role not in _ROLES:
        raise DataError(f"the role {str(role)[:40]!r} isn't known", f"Use one of {', '.join(_ROLES)}.", where=f"{where}.role")
    content = given.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content.{place}") for place, part in enumerate(content))
    if not isinstance(content, str):
        raise DataError("the message has no text", "Send content as a string, or as a list of text parts.", where=f"{where}.content")
    return {"role": _ROLES[role], "content": content}


def _part(part: Any, where: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    what = f"a content part of type {str(kind)[:40]!r} isn't understood here"
    raise DataError(what, "Send text: images, sound and files can't be read.", where=where)
