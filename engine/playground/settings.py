"""How an answer is drawn: the knobs of a chat, with their meaning, limits and what suits a speaker. Knows no screen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from engine.errors import StateError

if TYPE_CHECKING:
    from engine.playground.speakers import Speaker

HELP = {
    "temperature": "How much chance there is in the choice of each token. 0 always takes the likeliest, so the same prompt gets the "
    "same answer; 1 is as varied as the model itself; above that it soon turns to nonsense.",
    "top_p": "Only the likeliest tokens that together make up this share are drawn from (nucleus sampling). 1 leaves all in.",
    "max_tokens": "Where an answer that finds no end of its own is cut off.",
    "seed": "The same seed draws the same answer again. Empty draws anew each time. It means nothing at temperature 0.",
    "system_prompt": "Said to the model before the conversation. Empty: what it was trained with, if anything.",
    "remember": "Whether earlier messages are shown to the model with each new one. nano and what is trained on it know single "
    "questions only, so for them it is off.",
}
LIMITS: dict[str, tuple[float, float]] = {"temperature": (0.0, 2.0), "top_p": (0.01, 1.0), "max_tokens": (1, 8192), "seed": (0, 2**31 - 1)}


@dataclass(frozen=True)
class Settings:
    """The knobs of one conversation."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int | None = None
    system_prompt: str = ""
    remember: bool = True

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise StateError(f"{name.replace('_', ' ')} has to be {low:g} to {high:g}", "Correct it in the settings.", where="settings")

    @classmethod
    def read(cls, values: dict[str, Any], otherwise: Settings) -> Settings:
        """What was kept; another version's unknown or impossible values give way to `otherwise`."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        try:
            return cls(**{**asdict(otherwise), **known})
        except (StateError, TypeError):
            return otherwise

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def body(self, speaker: Speaker) -> dict[str, Any]:
        """As OpenAI's API writes them."""
        body: dict[str, Any] = {"model": speaker.path or speaker.base_model, "temperature": self.temperature, "top_p": self.top_p}
        body["max_tokens"] = self.max_tokens
        if self.seed is not None:
            body["seed"] = self.seed
        if speaker.stop:
            body["stop"] = list(speaker.stop)
        return body
