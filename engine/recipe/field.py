"""What a recipe's parts are made of: frozen, checked models whose fields carry their help, unit and healthy range once."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


def field(default: Any, help: str, *, unit: str = "", healthy: tuple[float, float] | None = None, **checks: Any) -> Any:
    """A field with its one description; `healthy` is the range in which most runs do well."""
    extra: dict[str, Any] = {"unit": unit}
    if healthy:
        extra["healthy"] = list(healthy)
    if isinstance(default, type) and issubclass(default, BaseModel):
        return Field(default_factory=default, description=help, json_schema_extra=extra, **checks)
    return Field(default=default, description=help, json_schema_extra=extra, **checks)


class Part(BaseModel):
    """A group of fields. `of_methods` names the methods that read it; empty means all."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    of_methods: ClassVar[tuple[str, ...]] = ()
