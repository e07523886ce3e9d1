"""Which floating addresses may be on the devices, and what follows for each of them.

An address is on its device only as long as gate and ruleset of a configuration that has it are
in place: the gate guards what its configuration names, and an address without its ruleset would
answer with resets. So what a new configuration adds comes after its gate, and what it removes
goes before.

Of many addresses some are added at a time. A takeover waits for the first ones only: the others
come while those are served already, in the order of the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice

from hanat.core.actions import Action, AddAddresses, Announce, RemoveAddresses
from hanat.core.configuration import Configuration, FloatingAddress, Interface, among
from hanat.core.node_snapshot import NodeSnapshot
from hanat.core.node_state import NodeState
from hanat.core.status import Role

FIRST_MAX = 64  # the kernel adds so many in 1 to 5 ms


class Holding(NodeState):
    """What a node has on its devices, and what it should have.

    Of a thousand addresses none is searched for in a tuple, or compared with all others.
    """

    _left: tuple[FloatingAddress, ...] = ()  # perhaps on the devices, by a former opening
    _coming = False  # an addition has no outcome yet that follows the first ones
    _in_flight: tuple[FloatingAddress, ...] = ()  # a holder's additions that have no outcome yet
    _index_of: tuple[FloatingAddress, ...] = ()
    _index: Mapping[tuple[str, Interface], tuple[FloatingAddress, ...]] = {}
    _placed_then: tuple[tuple[FloatingAddress, ...], ...] = ((), (), ())  # wanted, held, result

    def snapshot(self) -> NodeSnapshot:
        """Return an immutable copy of the state."""
        held = self._placed if self.role is Role.ACTIVE else ()
        return replace(super().snapshot(), held=held, coming=self._in_flight)

    def _tried(self, action: AddAddresses) -> None:
        """Note that an addition has an outcome."""
        if self._in_flight:
            tried = set(action.vips)
            self._in_flight = tuple(vip for vip in self._in_flight if vip not in tried)

    def _clear(self) -> tuple[Action, ...]:
        """Remove what may be on the devices."""
        wanted = self._configuration.vips
        held = () if self._held is wanted else self._held
        self._cleared, self._in_flight = True, ()
        return (RemoveAddresses(tuple(dict.fromkeys((*held, *self._left, *wanted)))),)

    def _guarded(self) -> tuple[FloatingAddress, ...]:
        """Return what may be held now: what is wanted, and has its gate and its ruleset.

        Those may be of an older configuration while the newest is being installed. What it adds
        would be unguarded until then, and answer with resets.
        """
        installed = self._installed
        if installed is None or installed is self._configuration:
            return () if installed is None else self._configuration.vips
        found = among(self._configuration.vips, installed.vips)
        for coming in self._pending:
            found = among(found, coming.vips)
        return found

    def _no_longer_pending(self, configuration: Configuration) -> None:
        """Note what became of a configuration, and of those before it, which it replaced."""
        places = [i for i, c in enumerate(self._pending) if c is configuration]
        if places:
            self._pending = self._pending[places[-1] + 1 :]

    def _announce_some(self, vips: tuple[FloatingAddress, ...]) -> tuple[Action, ...]:
        there = among(vips, self._placed)
        return (Announce(there, self._lease_until),) if there else ()

    def _add_new(self) -> tuple[Action, ...]:
        """Add what a holder lacks and may have, as much again as it has: the outcome brings more.

        So a thousand need six additions: to find out what is lacking is a look at all of them.
        """
        held = set(self._held)
        lacking = (vip for vip in self._guarded() if vip not in held)
        new = tuple(islice(lacking, max(FIRST_MAX, len(held))))
        if not new:
            return ()
        # A vip that was held with fewer addresses, or under another name, is this one now.
        known = {(vip.interface, address) for vip in new for address in vip.addresses}
        rest = (v for v in self._held if any((v.interface, a) not in known for a in v.addresses))
        there = dict.fromkeys((*rest, *new))
        wanted = tuple(vip for vip in self._configuration.vips if vip in there)
        self._held = tuple(dict.fromkeys((*wanted, *there)))
        self._coming = True
        self._in_flight += new
        return (AddAddresses(new),)

    def _add_rest(self, now: float) -> tuple[Action, ...]:
        """After an addition: go on, or begin to announce all."""
        more = self._add_new()
        if self._coming and not more:  # the repetitions so far named those that were there
            self._upkeep.begin(now)
            self._coming = False
        return more

    @property
    def _placed(self) -> tuple[FloatingAddress, ...]:
        # What a new configuration adds is not there before its gate is.
        wanted, held = self._configuration.vips, self._held
        if wanted is held:
            return wanted
        known_wanted, known_held, found = self._placed_then
        if known_wanted is not wanted or known_held is not held:
            found = among(wanted, held)
            self._placed_then = wanted, held, found
        return found

    def _placed_with(self, interface: str, address: Interface) -> tuple[FloatingAddress, ...]:
        """Return what is there of an address; a flush takes all of them."""
        placed = self._placed
        if placed is not self._index_of:
            self._index_of = placed
            self._index = {(vip.interface, a): (vip,) for vip in placed for a in vip.addresses}
        return self._index.get((interface, address), ())

    def _announce(self) -> Announce:
        """Announce what is there: packets to an address that is still to come would be forwarded.

        Of a thousand none is compared with all others: those that come are the same objects.
        """
        placed = self._placed
        if self._in_flight:
            coming = set(map(id, self._in_flight))
            placed = tuple(vip for vip in placed if id(vip) not in coming)
        return Announce(placed, self._lease_until)

    def _let_go(self, wanted: tuple[FloatingAddress, ...]) -> tuple[FloatingAddress, ...]:
        """Return what a holder has and a new configuration does not, address by address.

        A vip that only got another address or name must not be gone for a moment.
        """
        keep, held = set(wanted), set(self._held)
        stay = {(vip.interface, address) for vip in wanted for address in vip.addresses}
        gone: list[FloatingAddress] = []
        stays: list[FloatingAddress] = []
        for vip in (vip for vip in dict.fromkeys((*self._held, *self._left)) if vip not in keep):
            for part, some in ((stays, True), (gone, False)):
                left = tuple(a for a in vip.addresses if ((vip.interface, a) in stay) is some)
                # What stays of another opening's is added again.
                known = vip in held or not some
                part.extend([replace(vip, addresses=left)] if left and known else [])
        self._left = tuple(vip for vip in self._left if vip in keep)
        self._held = (*(vip for vip in self._held if vip in keep), *stays, *gone)
        return tuple(gone)
