"""Nothing changes while nobody could mend it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from slipway.gates import Finding, Subject, failed, passed
from slipway.release import Strict

APPLIES_TO = ("release", "rollout", "removal")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PydanticCustomError(
            "slipway", "no such timezone: a name as Europe/Berlin or UTC"
        ) from None
    return name


def _quoted(value: object) -> object:
    if isinstance(value, int):
        # YAML 1.1 reads 22:00 as a number to the base of 60.
        raise PydanticCustomError("slipway", 'a time of day stands in quotes: "22:00"')
    return value


Zone = Annotated[str, AfterValidator(_zone)]
Time = Annotated[
    str, BeforeValidator(_quoted), Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")
]


class Window(Strict):
    """Local time. On these `weekdays`, or from `first` to `last` day (both within), between `start`
    and `end` of each such day."""

    why: Annotated[str, Field(min_length=3)]
    weekdays: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    first: date | None = None
    last: date | None = None
    start: Time = "00:00"
    end: Time = "24:00"

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        dated = self.first is not None and self.last is not None
        if dated == bool(self.weekdays) or (self.first is None) != (self.last is None):
            raise PydanticCustomError("slipway", "give either weekdays, or first and last")
        if self.first and self.last and self.first > self.last:
            raise PydanticCustomError("slipway", "last is before first")
        if self.start >= self.end:
            raise PydanticCustomError(
                "slipway", "end is not after start: over midnight, write two windows"
            )
        return self

    def holds(self, local: datetime) -> bool:
        day = local.date()
        if self.first and self.last:
            today = self.first <= day <= self.last
        else:
            today = _DAYS[day.weekday()] in self.weekdays
        return today and self.start <= f"{local:%H:%M}" < self.end


class Limits(Strict):
    """No windows: never frozen."""

    timezone: Zone
    windows: tuple[Window, ...]


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    local = subject.now.astimezone(ZoneInfo(limits.timezone))
    now = f"{local:%a %Y-%m-%d %H:%M} {limits.timezone}"
    frozen = [window for window in limits.windows if window.holds(local)]
    for window in frozen:
        last = f"{window.last} " if window.last else ""
        yield failed(
            f"frozen: {window.why} ({now})",
            f"merge after {last}{window.end} {limits.timezone}; going back is not frozen",
        )
    if not frozen:
        yield passed(f"none of {len(limits.windows)} windows ({now})")
