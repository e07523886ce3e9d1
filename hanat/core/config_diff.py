"""Changing the configuration of a cluster that runs: what differs, what may not.

A change is proposed with the revision it was based on and compared again when it is
committed (`raft.state`), so two operators cannot overwrite each other. What is
here is decided before: most of it by comparing values, never texts, so that a comment
is no change of what the kernel does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

from hanat.core.checks import kind_word
from hanat.core.configuration import Configuration, Profile, VirtualService
from hanat.core.descriptions import describe_check, describe_server, describe_service
from hanat.errors import Problem


class Rollout(Enum):
    """What a node made of a revision."""

    IN_FORCE = "in force"
    REFUSED = "refused"
    BEHIND = "not yet"
    UNREACHABLE = "not reachable"


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says of the configuration.

    Attributes:
        revision: Newest of which it is known there whether it is in force; None if the
            node was not heard just now.
        refuses: It is not.
    """

    revision: int | None
    refuses: bool = False

    def state(self, wanted: int) -> Rollout:
        """Return what became of a revision on that node."""
        if self.revision is None:
            return Rollout.UNREACHABLE
        if self.revision < wanted:
            return Rollout.BEHIND
        return Rollout.REFUSED if self.refuses else Rollout.IN_FORCE


def refusals(
    current: Configuration, wanted: Configuration, *, profile: Profile, file: str
) -> tuple[Problem, ...]:
    """Return why a configuration must not follow another while nodes run.

    Args:
        current: In force on this node.
        wanted: What an operator wants.
        profile: That the nodes run with, whatever `current` says.
        file: Name of `wanted` in messages.
    """
    found = []
    if wanted.name != current.name:
        text = (
            f'"{wanted.name}" is another cluster than "{current.name}", and nodes know each other '
            "by the name; a cluster that runs keeps it"
        )
        found.append(Problem(file, "cluster.name", text))
    if wanted.profile.name != profile.name:
        text = (
            f'nodes run with "{profile.name}", and promises of two lengths do not go together; '
            f'write "{profile.name}" here, or stop all nodes, edit cluster.profile in every '
            "cluster file, and start all"
        )
        found.append(Problem(file, "cluster.profile", text))
    return tuple(found)


def differences(current: Configuration, wanted: Configuration) -> tuple[str, ...]:
    """Return what would change, one line each: ``+`` added, ``-`` removed, ``~`` changed.

    Empty if nothing does: order and comments count for nothing.
    """
    # Of a thousand services few change: the text of the others is never made.
    known = {service.name: service for service in current.services}
    same = {s.name for s in wanted.services if known.get(s.name) == s}
    before, after = _parts(current, same), _parts(wanted, same)
    lines = []
    for part in dict.fromkeys((*before, *after)):
        old, new = before.get(part), after.get(part)
        if old is None:
            lines.append(f"+ {part}: {new}")
        elif new is None:
            lines.append(f"- {part}: {old}")
        elif old != new:
            lines.append(f"~ {part}: {old} -> {new}")
    return tuple(lines)


def _parts(configuration: Configuration, without: Collection[str]) -> Mapping[str, str]:
    """Return everything in a configuration under a name that is the same in another one.

    Args:
        configuration: Which one.
        without: Names of services to leave out.
    """
    parts = {
        "cluster name": configuration.name,
        "cluster profile": configuration.profile.name,
        "cluster forward": configuration.forward.value,
    }
    for transit in configuration.transits:
        parts[f"transit {transit.name}"] = ", ".join(sorted(map(str, transit.networks)))
    for vip in configuration.vips:
        addresses = ", ".join(map(str, vip.addresses))
        parts[f"vip {vip.name}"] = f"{addresses} on {vip.interface}"
    for masquerade in configuration.masquerades:
        networks, sources = (
            ", ".join(sorted(map(str, values)))
            for values in (masquerade.networks, masquerade.sources)
        )
        name, text = f"masquerade {networks}", f"to {sources} on {masquerade.interface}"
        parts[name] = f"{parts[name]}; {text}" if name in parts else text
    for service in (s for s in configuration.services if s.name not in without):
        parts[f"service {service.name}"] = _service(service)
        parts |= _checks(service)
        for server in service.servers:
            parts[f"service {service.name} server {server.name}"] = describe_server(server)
    return parts


def _service(service: VirtualService) -> str:
    text = ", ".join(map(str, service.listens)) or "nothing"
    return ", ".join((text, *describe_service(service)))


def _checks(service: VirtualService) -> Mapping[str, str]:
    """Return the checks by their kinds; those of one kind are one part, in any order."""
    texts: dict[str, list[str]] = {}
    for check in service.checks:
        kind = kind_word(check.kind)
        texts.setdefault(f"service {service.name} check {kind}", []).append(describe_check(check))
    return {part: "; ".join(sorted(found)) for part, found in texts.items()}
