"""Everything that looks at this machine while a node runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hanat.config.settings import NodeSettings
from hanat.core.configuration import FloatingAddress
from hanat.core.inputs import Input
from hanat.core.notation import GATE_TABLE, TABLE
from hanat.daemon.claim_watch import ClaimWatch
from hanat.daemon.devices import DeviceWatch
from hanat.daemon.drift_watch import DriftWatch
from hanat.daemon.forward_watch import ForwardWatch
from hanat.daemon.path_watch import PathWatch
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.kernel.claims import KernelClaims
from hanat.kernel.forwarding import KernelForwarding
from hanat.kernel.ports import Links
from hanat.kernel.ruleset_watch import KernelRulesetWatch
from hanat.kernel.sysctls import KernelSettings
from hanat.raft.guard import Guard


@dataclass(frozen=True, slots=True)
class WatchParts:
    """What the watches need.

    Attributes:
        paths: Kernel device to path.
        heard_at: Returns when a peer was heard last on a path [s], None if never.
        feed: Takes inputs of the core.
        usable: Takes a device, and whether it has a carrier, before the core hears of it.
        vips: Returns the floating addresses of the configuration in force.
    """

    settings: NodeSettings
    guard: Guard
    rulesets: RulesetInstaller
    links: Links
    paths: Mapping[str, int]
    heard_at: Callable[[int, int | None], float | None]
    feed: Callable[[Input], None]
    usable: Callable[[str, bool], None]
    vips: Callable[[], tuple[FloatingAddress, ...]]


class Watches:
    """Carriers and addresses, rules and settings, paths."""

    def __init__(self, parts: WatchParts) -> None:
        interfaces = parts.settings.interfaces
        self._devices = DeviceWatch(
            parts.links, interfaces, feed=parts.feed, usable=parts.usable,
            own=parts.settings.myself.addresses,
        )  # fmt: skip
        self._drift = DriftWatch(
            KernelRulesetWatch(), parts.rulesets, KernelSettings(),
            devices=interfaces.values(), feed=parts.feed,
        )  # fmt: skip
        self._forward = ForwardWatch(
            KernelRulesetWatch(), KernelForwarding((GATE_TABLE, TABLE)), parts.feed
        )
        self._claims = ClaimWatch(KernelClaims(interfaces.values()), parts.vips, parts.feed)
        self._paths = PathWatch(
            parts.guard, parts.heard_at, parts.links,
            interfaces=interfaces, paths=parts.paths, feed=parts.feed,
        )  # fmt: skip

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell what is found, and what changes from here on."""
        self._devices.begin(loop)
        self._drift.begin(loop)
        self._forward.begin(loop)
        self._claims.begin(loop)
        self._paths.begin(loop)

    def close(self) -> None:
        """Stop."""
        self._devices.close()
        self._drift.close()
        self._forward.close()
        self._claims.close()
        self._paths.close()
