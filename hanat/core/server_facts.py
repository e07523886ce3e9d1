"""Three facts about a server, and what follows for it: is it in rotation, and if not, why?

*Configured*: the server is present, with a weight, on which a runtime weight (of a command, an
agent, a script) is a factor. *Administrative*: an operator made it `ready`, put it into `drain`
(no new clients) or `maint` (its connections end, too). *Operational*: all of its checks hold;
without a check it is up. It is in rotation if its weight is not 0, it is ready, and it is up.
The facts are never mixed: each has its own cause, and several may hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

from hanat.core.configuration import OnServerDown, Protocol, VirtualService
from hanat.core.probing import Operational
from hanat.core.verdicts import NO_VERDICT, Verdict

YEAR_9999_S = 253_370_764_800
WEIGHT_MAX = 65535  # as in the configuration, and in IPVS


class Mode(Enum):
    """What operators made of a server; HAProxy's words."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


def default_policy(protocol: Protocol) -> OnServerDown:
    """Return what a service does that says nothing about it."""
    return OnServerDown.EXPIRE if protocol is Protocol.UDP else OnServerDown.RESET


class ServerId(NamedTuple):
    """A server of a service."""

    service: str
    server: str

    def __str__(self) -> str:
        return f"{self.service}/{self.server}"


@dataclass(frozen=True, slots=True)
class Administrative:
    """A record of the log: what an operator made of a server.

    Attributes:
        by: Who did it, in words.
        reason: Why, in words; may be empty.
        since_s: When, seconds since 1970 by the wall clock of the node that took the order.
        until_s: Likewise, when it is ready again; None: when somebody says so. The record
            counts until another one is in the log, see `core.time_limits`.
    """

    mode: Mode = Mode.READY
    by: str = ""
    reason: str = ""
    since_s: float = 0.0
    until_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no calendar has.

        Raises:
            ValueError: `until_s` is before 1970 or after the year 9999.
        """
        if self.until_s is not None and not 0 <= self.until_s < YEAR_9999_S:
            raise ValueError(f"until {self.until_s}: not a time between 1970 and the year 9999")


@dataclass(frozen=True, slots=True)
class CheckedServer:
    """A server as it is configured.

    Attributes:
        place: Address and port; at another place, the same name is another machine.
        targets: One per check; all must hold. None: always up.
    """

    name: str
    place: str
    weight: int = 1
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckedService:
    """A service as it is configured; `min_healthy_percent` 0: never in panic."""

    name: str
    servers: tuple[CheckedServer, ...]
    min_healthy_percent: int = 0
    on_server_down: OnServerDown = OnServerDown.RESET

    def __post_init__(self) -> None:
        assert 0 <= self.min_healthy_percent <= 100, self


def checked_service(
    service: VirtualService, targets: Mapping[str, Sequence[str]]
) -> CheckedService:
    """Return what of a service decides about its servers; `targets` by name of the server."""
    protocols = {listen.protocol for listen in service.listens}
    udp = protocols == {Protocol.UDP}
    policy = service.on_server_down or default_policy(Protocol.UDP if udp else Protocol.TCP)
    return CheckedService(
        name=service.name,
        servers=tuple(
            CheckedServer(s.name, s.place, s.weight, tuple(targets[s.name]))
            for s in service.servers
        ),
        min_healthy_percent=service.min_healthy_percent,
        on_server_down=policy,
    )


class Cause(Enum):
    """Why a server is not in rotation; several may hold."""

    WEIGHT = "weight"
    MAINT = "maint"
    DRAIN = "drain"
    DOWN = "down"
    UNKNOWN = "unknown"


_NOT_HEALTHY = frozenset({Cause.DOWN, Cause.UNKNOWN})


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What follows for one server.

    Attributes:
        weight: The configured one times the factor; at least 1 if neither is 0.
        exact: The same, not made whole.
        stays: It is in rotation without a verdict, as it was before.
        causes: Why it is not healthy, or should not serve; empty: it gets clients.
    """

    name: str
    place: str
    weight: int
    exact: float
    mode: Mode
    operational: Operational
    stays: bool
    causes: tuple[Cause, ...]

    @property
    def is_candidate(self) -> bool:
        """It should serve, if it can."""
        return _NOT_HEALTHY.issuperset(self.causes)


def operational(server: CheckedServer, verdicts: Mapping[str, Verdict]) -> Operational:
    """Return the worst that any check of a server says; without a check it is up."""
    states = {verdicts.get(target, NO_VERDICT).state for target in server.targets}
    order = (Operational.DOWN, Operational.UNKNOWN)
    return next((state for state in order if state in states), Operational.UP)


def scaled(weight: int, factor: float) -> int:
    """Return a weight times a factor: whole, and at least 1 if neither is 0."""
    product = weight * factor
    return 0 if product == 0 else max(1, round(min(WEIGHT_MAX, product)))


def judge(
    server: CheckedServer,
    administrative: Administrative,
    verdicts: Mapping[str, Verdict],
    *,
    factor: float,
    stays: bool,
) -> ServerStatus:
    """Return what follows for a server.

    Args:
        server: As configured.
        administrative: What operators made of it.
        verdicts: What is committed, by target.
        factor: Its runtime weight.
        stays: It was in rotation when checks were added that have no verdict yet.
    """
    weight = scaled(server.weight, factor)
    state = operational(server, verdicts)
    unknown = state is Operational.UNKNOWN
    found = (
        (Cause.WEIGHT, weight == 0),
        (Cause.MAINT, administrative.mode is Mode.MAINT),
        (Cause.DRAIN, administrative.mode is Mode.DRAIN),
        (Cause.DOWN, state is Operational.DOWN),
        (Cause.UNKNOWN, unknown and not stays),
    )
    return ServerStatus(
        name=server.name,
        place=server.place,
        weight=weight,
        exact=min(float(WEIGHT_MAX), server.weight * factor),
        mode=administrative.mode,
        operational=state,
        stays=unknown and stays,
        causes=tuple(cause for cause, holds in found if holds),
    )


def words(
    status: ServerStatus,
    server: CheckedServer,
    administrative: Administrative,
    verdicts: Mapping[str, Verdict],
) -> str:
    """Return all causes as clauses; empty if there is none."""
    clauses = {
        Cause.WEIGHT: "its weight is 0" if server.weight == 0 else "its runtime weight is 0",
        Cause.MAINT: f"it is in maintenance{_by(administrative)}",
        Cause.DRAIN: f"it is drained{_by(administrative)}",
        Cause.DOWN: f"it is down ({_answers(server, verdicts)})",
        Cause.UNKNOWN: f"nothing is known of it yet ({_unknown(server, verdicts)})",
    }
    return " and ".join(clauses[cause] for cause in status.causes)


def _by(record: Administrative) -> str:
    parts = [f" by {record.by}"] if record.by else []
    if record.until_s is not None:
        until = datetime.fromtimestamp(record.until_s, UTC)
        parts.append(f" until {until.isoformat(sep=' ', timespec='seconds')}")
    parts += [f" ({record.reason})"] if record.reason else []
    return "".join(parts)


def _answers(server: CheckedServer, verdicts: Mapping[str, Verdict]) -> str:
    down = {t: verdicts[t] for t in server.targets if t in verdicts}
    return ", ".join(
        f"{target}: {verdict.answer or 'no answer'}, {verdict.in_a_row} in a row"
        for target, verdict in down.items()
        if verdict.state is Operational.DOWN
    )


def _unknown(server: CheckedServer, verdicts: Mapping[str, Verdict]) -> str:
    unknown = Operational.UNKNOWN
    names = [t for t in server.targets if verdicts.get(t, NO_VERDICT).state is unknown]
    return f"no verdict of {', '.join(names)}"
