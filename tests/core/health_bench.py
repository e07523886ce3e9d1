"""A node that knows servers, the state of its log, and what the kernel was told last."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import TypeVar

from hanat.core.checks import ServiceCheck, TcpCheck
from hanat.core.configuration import (
    PROFILES,
    Configuration,
    Listen,
    Protocol,
    RealServer,
    Scheduler,
    VirtualService,
)
from hanat.core.health_effects import Effect, Propose, Rotate
from hanat.core.probing import Check, Operational, Sighting
from hanat.core.schedulers import InRotation
from hanat.core.server_facts import Administrative, ServerId
from hanat.core.server_records import (
    Record,
)
from hanat.core.service_health import ServiceHealth
from hanat.core.service_view import view_of
from hanat.raft.state import Barrier, Holder, Records, State, encode

ME, PEER, TERM = 1, 2, 3
CHECK = ServiceCheck(TcpCheck(), Check(interval_s=2.0, timeout_s=1.0))
LISTEN = Listen(ip_address("203.0.113.10"), Protocol.TCP, 80, 80)
WEB1, WEB2, WEB3 = (ServerId("web", f"web{n}") for n in (1, 2, 3))


def server(number: int, weight: int = 1) -> RealServer:
    return RealServer(f"web{number}", ip_address(f"10.11.12.{20 + number}"), 80, weight)


def web(*numbers: int, checked: bool = True) -> VirtualService:
    servers = tuple(server(number) for number in numbers)
    checks = (CHECK,) if checked else ()
    return VirtualService("web", (LISTEN,), Scheduler.WRR, servers, checks=checks)


def configuration(*services: VirtualService) -> Configuration:
    return Configuration("test", PROFILES["default"], (), (), services)


E = TypeVar("E", bound=Effect)


def of(kind: type[E], effects: Iterable[Effect]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


class Bench:
    """A node, the state of its log, and what the kernel was told last."""

    def __init__(
        self, *services: VirtualService, node_id: int = ME, state: State | None = None
    ) -> None:
        self.now = 100.0
        self.state = State() if state is None else state
        self.health = ServiceHealth(node_id)
        self.rotations: dict[str, tuple[InRotation, ...]] = {}
        self.effects: list[Effect] = []
        self.configure(*services)

    @property
    def wall_s(self) -> float:
        return 1e9 + self.now

    def take(self, effects: Iterable[Effect]) -> list[Effect]:
        found = list(effects)
        for rotate in of(Rotate, found):
            self.rotations |= rotate.rotations
        self.effects += found
        return found

    def configure(self, *services: VirtualService) -> list[Effect]:
        found = self.take(self.health.configure(configuration(*services), self.now, self.wall_s))
        while self.health.due() == 0.0:
            found += self.take(self.health.tick(self.now, self.wall_s))
        return found

    def hold(self, node_id: int | None = ME, term: int = TERM) -> list[Effect]:
        self.state.apply(encode(Barrier(term, node_id or ME)))
        if node_id is not None:
            self.state.apply(encode(Holder(term, node_id)))
        return self.take(self.health.hold(node_id, term, self.now, self.wall_s))

    def commit(self, effects: Iterable[Effect]) -> list[Effect]:
        """Let what was proposed come into the log."""
        found: list[Effect] = []
        for proposal in of(Propose, effects):
            found += self.record(*proposal.records, term=proposal.term)
        return found

    def record(self, *records: Record, term: int = 0) -> list[Effect]:
        command = self.state.apply(encode(Records(term, records)))
        if not isinstance(command, Records):
            return []
        return self.take(self.health.apply(command.records, self.now, self.wall_s))

    def target(self, number: int) -> str:
        place = f"10.11.12.{20 + number}:80"
        (name,) = (name for name in self.health.targets if place in name)
        return name

    def sees(
        self, number: int, state: Operational, *, tenure: int | None = TERM,
        percent: int | None = None, mode: str = "", answer: str = "connection refused",
    ) -> list[Effect]:  # fmt: skip
        up = state is Operational.UP
        sighting = Sighting(
            target=self.target(number), state=state, since=self.now, ok=up, in_a_row=3,
            answer="" if up else answer, latency_s=0.001, at=self.now,
            tenure=tenure, decided=state if tenure is not None else Operational.UNKNOWN, news=True,
            percent=percent, mode=mode,
        )  # fmt: skip
        return self.take(self.health.sight(sighting, self.now, self.wall_s))

    def all_up(self, *numbers: int) -> Bench:
        for number in numbers:
            self.commit(self.sees(number, Operational.UP))
        return self

    @property
    def clients(self) -> list[str]:
        return [one.name for one in self.rotations["web"]]

    def administrative(self, server: ServerId) -> Administrative:
        """Return what operators made of a server."""
        return self.health.knowledge({}, {}, self.now).rotations.administrative(server)

    def why(self, service: VirtualService, server: str) -> str:
        """Return why a server gets no clients."""
        known = self.health.knowledge({ME: "r1", PEER: "r2"}, {}, self.now)
        return view_of(service, known).server(server).why
