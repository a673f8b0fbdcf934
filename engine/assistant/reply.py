"""What the assistant answers, as data: text, choices, actions, a proposal, facts. JSON-ready both ways; knows no screen.

Nothing in it does anything by itself: an action is a button that a person may press.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

ActionKind = Literal[
    "launch",
    "wizard",
    "run",
    "runs",
    "pause",
    "stop",
    "resume",
    "chat",
    "beside",
    "compare",
    "dataset",
    "datasets",
    "model",
    "models",
    "settings",
    "guide",
]


@dataclass(frozen=True)
class Choice:
    """A short answer to click: what stands on it, and what is said when it is clicked."""

    label: str
    say: str


DEMO = Choice("Show me the one-minute demo", "Show me the one-minute demo")


@dataclass(frozen=True)
class Action:
    """Something that can be done about the reply. `about` names what it is done to: a run, a model, a data set, runs joined by commas,
    for `beside` two that are talked to side by side.

    `launch` and `wizard` are about the proposal of the same reply.
    """

    kind: ActionKind
    label: str
    about: str = ""


@dataclass(frozen=True)
class Reason:
    """Why one setting is what it is. `chosen`: the person said so."""

    field: str
    label: str
    value: str
    reason: str
    source: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Takes:
    """One estimate: time, memory or money, in words, how big that is, and what it rests on."""

    name: str
    text: str
    size: str
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Warned:
    """One warning. `stop`: it would fail or teach nothing."""

    level: str
    text: str
    action: str


@dataclass(frozen=True)
class Proposal:
    """A whole recipe to start with one click, in sentences, each choice with its reason; `goal` is the wizard's."""

    recipe: dict[str, Any]
    goal: str
    changes: dict[str, Any]
    summary: tuple[str, ...]
    reasons: tuple[Reason, ...]
    takes: tuple[Takes, ...]
    warnings: tuple[Warned, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing speaks against starting it."""
        return all(warning.level != "stop" for warning in self.warnings)


@dataclass(frozen=True)
class Reply:
    """One answer. `text` is Markdown in which names of people's things stand escaped; `facts` is a table, one dict a row."""

    intent: str
    text: str
    choices: tuple[Choice, ...] = ()
    actions: tuple[Action, ...] = ()
    proposal: Proposal | None = None
    facts: tuple[dict[str, Any], ...] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Reply:
        """What `to_dict` wrote; of what another version wrote, the part that this one knows."""
        proposal = values.get("proposal")
        return Reply(
            intent=str(values.get("intent", "")),
            text=str(values.get("text", "")),
            choices=_many(Choice, values.get("choices")),
            actions=_many(Action, values.get("actions")),
            proposal=_proposal(proposal) if proposal else None,
            facts=tuple(values.get("facts") or ()),
        )


def _proposal(values: dict[str, Any]) -> Proposal:
    return Proposal(
        recipe=values.get("recipe") or {},
        goal=values.get("goal", ""),
        changes=values.get("changes") or {},
        summary=tuple(values.get("summary") or ()),
        reasons=_many(Reason, values.get("reasons")),
        takes=_many(Takes, values.get("takes")),
        warnings=_many(Warned, values.get("warnings")),
    )


def _many(kind: type, values: Any) -> tuple[Any, ...]:
    known = {known.name for known in fields(kind)}

    def of(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    return tuple(kind(**{name: of(value) for name, value in one.items() if name in known}) for one in values or ())
