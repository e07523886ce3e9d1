"""Ordinary trouble: what makes nodes hindered or unsafe, one of them or all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hanat.core import actions as do
from hanat.core import inputs as told
from hanat.raft.state import NewConfiguration
from tests.sim.process import Process
from tests.sim.world import World

Undo = Callable[[float, Callable[[], None]], None]
"""Calls something after a while, or when all faults end."""

Trouble = Callable[[World, Process, Undo], None]
SKEW_S = 0.003  # between what happens to all nodes


def _victims(world: World, process: Process) -> list[Process]:
    return list(world.processes.values()) if world.rng.random() < 0.5 else [process]


def _feed(process: Process, incarnation: int, item: told.Input) -> None:
    if process.alive and process.incarnation == incarnation:
        process.world.on(process, process.feed, item)


def _for_a_while(
    world: World,
    process: Process,
    undo: Undo,
    begin: Callable[[Process], Any],
    end: Callable[[Process], Any],
) -> list[int]:
    victims = [p for p in _victims(world, process) if p.alive]
    for victim in victims:
        world.after(world.rng.uniform(0, SKEW_S), begin, victim)

        def over(victim: Process = victim) -> None:
            end(victim)

        undo(SKEW_S + world.rng.uniform(0.2, 3.0), over)
    return [victim.node_id for victim in victims]


def _told(
    world: World, process: Process, undo: Undo, begin: told.Input, end: told.Input
) -> list[int]:
    births = {i: p.incarnation for i, p in world.processes.items()}
    return _for_a_while(
        world, process, undo,
        lambda p: _feed(p, births[p.node_id], begin), lambda p: _feed(p, births[p.node_id], end),
    )  # fmt: skip


def darken(world: World, process: Process, undo: Undo) -> None:
    """Take a carrier, of one node or of all: the switch died."""
    name = world.rng.choice(["public", "private"])
    lost = told.CarrierObserved(name, carrier=False)
    who = _told(world, process, undo, lost, told.CarrierObserved(name, carrier=True))
    world.tell(f"{who} lose the carrier of {name}")


def silence(world: World, process: Process, undo: Undo) -> None:
    """Let a path be silent behind a live carrier."""
    name = world.rng.choice(["public", "private"])
    silent = told.SilenceObserved(name, silent=True)
    who = _told(world, process, undo, silent, told.SilenceObserved(name, silent=False))
    world.tell(f"{who} hear nothing on {name}")


def drop_forwarded(world: World, process: Process, undo: Undo) -> None:
    """Let another program's chain drop what is forwarded."""
    begin, end = told.ForwardObserved("chain FORWARD drops"), told.ForwardObserved("")
    world.tell(f"{_told(world, process, undo, begin, end)} forward nothing")


def endanger(world: World, process: Process, undo: Undo) -> None:
    """Make nodes unsafe."""

    def begin(p: Process) -> None:
        p.refusing.unsafe = p.alive
        _feed(p, p.incarnation, told.SafetyObserved("test", "unsafe"))

    def end(p: Process) -> None:
        p.refusing.unsafe = False
        _feed(p, p.incarnation, told.SafetyObserved("test", ""))

    world.tell(f"{_for_a_while(world, process, undo, begin, end)} unsafe")


def fill_queue(world: World, process: Process, undo: Undo) -> None:
    """Let kernels take no announcement."""

    def fill(p: Process) -> None:
        p.refusing.queue_full = True

    def drain(p: Process) -> None:
        p.refusing.queue_full = False

    world.tell(f"{_for_a_while(world, process, undo, fill, drain)} take no announcements")


def refuse(world: World, process: Process, undo: Undo) -> None:
    """Let kernels refuse to add addresses."""

    def begin(p: Process) -> None:
        p.refusing.kinds = (do.AddAddresses,)

    def end(p: Process) -> None:
        p.refusing.kinds = ()

    world.tell(f"{_for_a_while(world, process, undo, begin, end)} refuse addresses")


def configure(world: World, process: Process, undo: Undo) -> None:  # noqa: ARG001 - as the others
    """Commit a revision that some kernels refuse, or all."""
    leader = next(
        (p for p in world.processes.values() if p.alive and not p.paused and p.ready), None
    )
    if leader is None:
        return
    text = f"revision-{world.now:.4f}"
    refusers = world.rng.choice([[], [process], list(world.processes.values())])
    for refuser in refusers:
        refuser.refusing.rulesets.add(text)
    world.tell(f"{text} is proposed, refused by {[p.node_id for p in refusers]}")
    command = NewConfiguration(leader.replica.state.revision, text)
    world.on(leader, leader.replica.propose, command)


TROUBLES: tuple[Trouble, ...] = (
    darken, silence, drop_forwarded, endanger, fill_queue, refuse, configure,
)  # fmt: skip
