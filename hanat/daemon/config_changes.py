"""Change the replicated configuration because an operator wants it.

Whatever can be known before is told before anything is proposed: what is wrong with the
text, what must not change while nodes run, what this node's kernel would refuse. Then
the text is proposed with the revision it was based on. What comes after is told as it
is: who has the new revision in force, who has not, and that nothing is known when no
majority answers in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hanat.api.backend import Shown
from hanat.config import cross_check
from hanat.config.key_levels import key_too_new
from hanat.config.settings import NodeSettings
from hanat.core.beacon import digest_of
from hanat.core.config_diff import Report, Rollout, differences, refusals
from hanat.core.configuration import Configuration
from hanat.core.node_snapshot import NodeSnapshot
from hanat.core.status import Role
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.doctor.preflight import check_neighbours
from hanat.errors import (
    ConfigError,
    NoQuorumError,
    OutcomeUnknownError,
    Problem,
    RefusedError,
    StaleRevisionError,
    StartupError,
)
from hanat.raft.guard import Guard
from hanat.raft.replica import Replica
from hanat.raft.state import NewConfiguration

COMMIT_S_MAX = 5.0  # a healthy commit takes some milliseconds
REPORT_S_MAX = 10.0  # for a large ruleset on a busy machine
LOOK_S = 0.02
THREAD_S_MAX = 10.0
# To try a ruleset out keeps the gate from being armed for as long, when the machine is busy: a
# holder with less of a lease than this tries only a small one.
TRIAL_S_MAX = 0.05
# It tries what is shorter: 36 kB kept it for 11 ms on a machine that was busy with other things.
TRIAL_BYTES_MAX = 48_000
ROLL_BACK_S = 20.0  # until a majority has it in force: a large ruleset takes seconds
FILE = "cluster.toml"  # what the text is called in messages
ACCEPTED_MAX = 16

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class ChangeParts:
    """What a change needs.

    Attributes:
        snapshot: Returns what the node is now.
        kick: Called when something was proposed.
    """

    settings: NodeSettings
    replica: Replica
    guard: Guard
    rulesets: RulesetInstaller
    snapshot: Callable[[], NodeSnapshot]
    kick: Callable[[], None]


class ConfigChanges:
    """Shows the replicated configuration and replaces it."""

    def __init__(self, parts: ChangeParts) -> None:
        self._parts = parts
        self._accepted: dict[int, str] = {}  # the newest revisions and their texts
        self._turn = asyncio.Lock()

    def accepted(self, command: NewConfiguration) -> None:
        """A configuration was committed and took effect."""
        self._accepted[command.based_on + 1] = command.text
        for revision in sorted(self._accepted)[:-ACCEPTED_MAX]:
            del self._accepted[revision]

    # ------------------------------------------------------------------ reading

    def show(self) -> Shown:
        """See `api.backend.Backend.configuration`."""
        state, snapshot = self._parts.replica.state, self._parts.snapshot()
        return Shown(
            revision=state.revision,
            text=state.text,
            profile=snapshot.profile.name,
            nodes=tuple(self._tell(name, r, state.revision) for name, r in self._reports()),
        )

    def _reports(self) -> list[tuple[str, Report]]:
        """Return what each node says of the configuration, by name."""
        settings, snapshot = self._parts.settings, self._parts.snapshot()
        guard = self._parts.guard
        heard = {peer: Report(*said) for peer, said in guard.revisions.items()}
        heard[settings.node_id] = Report(snapshot.settled, snapshot.refuses)
        # One that is connected and not heard may have lost some beacons: it is not gone.
        heard = {**{peer: Report(0) for peer in guard.connected}, **heard}
        return [(p.name, heard.get(p.node_id, Report(None))) for p in settings.peers]

    @staticmethod
    def _tell(name: str, report: Report, revision: int) -> dict[str, Any]:
        state = report.state(revision).value
        return {"node": name, "revision": report.revision, "state": state}

    # ----------------------------------------------------------------- changing

    async def change(
        self, text: str, based_on: int, *, dry_run: bool, force: bool = False
    ) -> dict[str, Any]:
        """See `api.backend.Backend.change`."""
        async with self._turn:
            if not dry_run:
                self._demand_leader()
            found = await self._check(text, based_on, force=force)
            before = self._parts.replica.state.text
            if dry_run or text == before:
                return {**found, "applied": False}
            revision = await self._commit(text, based_on)
            if not force and not await self._majority_has(revision):
                await self._roll_back(revision, before)
            return {**found, "applied": True, **await self._rollout(revision)}

    async def _majority_has(self, revision: int) -> bool:
        """Wait until a majority has a revision in force, or cannot or will not have it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ROLL_BACK_S
        quorum = self._parts.guard.quorum
        while True:
            states = [report.state(revision) for _, report in self._reports()]
            in_force = states.count(Rollout.IN_FORCE)
            if in_force >= quorum:
                return True
            possible = in_force + states.count(Rollout.BEHIND)
            if possible < quorum or loop.time() >= until:
                return False
            await asyncio.sleep(LOOK_S)

    async def _roll_back(self, revision: int, before: str) -> None:
        """Commit the text of before again, as a new revision, and say so.

        Raises:
            RefusedError: It was rolled back.
            HanatError: That failed.
        """
        reports = self._reports()
        said = ", ".join(f"{name}: {report.state(revision).value}" for name, report in reports)
        back = await self._commit(before, revision)
        await self._rollout(back)
        raise RefusedError(
            f"configuration not applied: revision {revision} was not in force on a majority "
            f"({said}) and was rolled back as revision {back}; see the status of these nodes, or "
            "apply with --force"
        )

    def _demand_another(self, current: Configuration, wanted: Configuration) -> None:
        """Refuse new interfaces that no other node that is heard has: none could take over."""
        parts = self._parts
        new = sorted(set(wanted.interfaces) - set(current.interfaces))
        heard = parts.guard.alive()
        digest = digest_of(new)
        if not new or not heard or any(b.interfaces & digest == digest for b in heard.values()):
            return
        raise RefusedError(
            f"configuration not applied: no other node has a device for {', '.join(new)} in "
            "[interfaces] of its node.toml, so none could take over; add it there and restart "
            "these nodes, or apply with --force"
        )

    def _demand_leader(self) -> None:
        parts = self._parts
        if len(parts.guard.connected) + 1 < parts.guard.quorum:
            raise NoQuorumError(
                f"configuration not applied: {parts.settings.node} sees no majority; "
                "try again when it does"
            )
        if parts.replica.leading:
            return
        leader = parts.replica.leader
        name = next((p.name for p in parts.settings.peers if p.node_id == leader), None)
        if name is None:
            raise NoQuorumError(
                f"configuration not applied: {parts.settings.node} knows no leader now; "
                "try again soon"
            )
        raise RefusedError(
            f"configuration not applied: {parts.settings.node} is not the leader; "
            f"ask the leader, which is {name}"
        )

    async def _check(self, text: str, based_on: int, *, force: bool) -> dict[str, Any]:
        """Return what a text would change.

        Raises:
            ConfigError: With everything that is wrong with it.
            StaleRevisionError: It is based on another revision.
        """
        parts = self._parts
        self._demand_revision(based_on)
        wanted = await self._read(text)
        await self._demand_known_keys(text)
        snapshot = parts.snapshot()
        current = snapshot.configuration
        problems = [
            *refusals(current, wanted, profile=snapshot.profile, file=FILE),
            *cross_check(parts.settings, wanted, file=f"node.toml of {parts.settings.node}"),
        ]
        if not problems:
            problems += await self._kernel_says(wanted)
            problems += await self._neighbours_say(current, wanted)
        if problems:
            raise ConfigError(tuple(problems))
        if not force:
            self._demand_another(current, wanted)
        self._demand_revision(based_on)  # all that took a while
        changes = await asyncio.to_thread(differences, current, wanted)
        same = text == parts.replica.state.text
        return {"revision": based_on, "changes": list(changes), "same_text": same}

    async def _demand_known_keys(self, text: str) -> None:
        """Refuse keys that another node may not know yet."""
        level = self._parts.replica.state.written_level
        found = await asyncio.to_thread(key_too_new, text, level)
        if found is not None:
            key, needed = found
            raise RefusedError(
                f"configuration not applied: {key} needs feature level {needed}, and {level} is in "
                'force: a node may not know it; upgrade all nodes, then "hanat cluster '
                'finish-upgrade"'
            )

    def _demand_revision(self, based_on: int) -> None:
        current = self._parts.replica.state.revision
        if not current:
            raise NoQuorumError(
                "configuration not applied: the cluster has none yet; its first leader proposes "
                "the cluster file of its node"
            )
        if based_on > current and self._parts.snapshot().role is not Role.ACTIVE:
            # It has heard less than who asks: cut off, or elected just now.
            raise NoQuorumError(
                f"configuration not applied: it is based on revision {based_on}, and "
                f"{self._parts.settings.node} knows {current} revisions and does not hold the "
                "addresses: it may have missed some; try again soon"
            )
        if based_on != current:
            raise StaleRevisionError(based_on=based_on, current=current)

    async def _read(self, text: str) -> Configuration:
        future: asyncio.Future[Configuration] = asyncio.get_running_loop().create_future()

        def done(found: Configuration | ConfigError) -> None:
            if future.done():
                return
            if isinstance(found, ConfigError):
                future.set_exception(found)
            else:
                future.set_result(found)

        self._parts.rulesets.read(text, file=FILE, done=done)
        return await _soon(future)

    async def _kernel_says(self, wanted: Configuration) -> list[Problem]:
        """Let this node's kernel look at the ruleset: another one would refuse it, too."""
        snapshot = self._parts.snapshot()
        usable_s = snapshot.profile.lease_s - snapshot.profile.margin_s
        short = snapshot.role is Role.ACTIVE and usable_s < TRIAL_S_MAX
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._parts.rulesets.try_out(
            wanted,
            lambda found: None if future.done() else future.set_result(found),
            bytes_max=TRIAL_BYTES_MAX if short else None,
        )
        found = await _soon(future)
        return [] if found is None else [Problem(FILE, "", f"refused by the kernel: {found}")]

    async def _neighbours_say(self, current: Configuration, wanted: Configuration) -> list[Problem]:
        known = {address.ip for vip in current.vips for address in vip.addresses}
        vips = (
            replace(vip, addresses=tuple(a for a in vip.addresses if a.ip not in known))
            for vip in wanted.vips
        )
        new = replace(wanted, vips=tuple(vip for vip in vips if vip.addresses))
        try:
            await check_neighbours(self._parts.settings, new)
        except StartupError as error:
            return [Problem(FILE, "vip", str(error))]
        return []

    async def _commit(self, text: str, based_on: int) -> int:
        """Propose a text; return its revision when it is committed and took effect."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        proposed = self._parts.replica.propose(
            NewConfiguration(based_on, text),
            lambda applied: None if future.done() else future.set_result(applied),
        )
        if not proposed:
            self._demand_leader()
            why = f"{self._parts.settings.node} cannot write its log; see its status"
            if self._parts.replica.handing_on:
                why = f"{self._parts.settings.node} hands leadership on; try again"
            raise NoQuorumError(f"configuration not applied: {why}")
        self._parts.kick()
        try:
            async with asyncio.timeout(COMMIT_S_MAX):
                applied = await future
        except TimeoutError:
            raise OutcomeUnknownError(revision=based_on + 1, waited_s=COMMIT_S_MAX) from None
        if not applied:
            raise NoQuorumError(
                "configuration not applied: the leader changed before it was committed; try again"
            )
        if self._accepted.get(based_on + 1) != text:
            current = self._parts.replica.state.revision
            raise StaleRevisionError(based_on=based_on, current=current)
        return based_on + 1

    async def _rollout(self, revision: int) -> dict[str, Any]:
        """Wait until every node that can be reached says what became of a revision."""
        loop = asyncio.get_running_loop()
        until = loop.time() + REPORT_S_MAX
        while True:
            reports = self._reports()
            waits = any(r.state(revision) is Rollout.BEHIND for _, r in reports)
            if not waits or loop.time() >= until:
                nodes = [self._tell(name, report, revision) for name, report in reports]
                return {"revision": revision, "nodes": nodes}
            await asyncio.sleep(LOOK_S)


async def _soon(future: asyncio.Future[Found]) -> Found:
    """Return what a thread finds; it may have others' work to do before."""
    try:
        async with asyncio.timeout(THREAD_S_MAX):
            return await future
    except TimeoutError:
        raise RefusedError(
            f"configuration not applied: not looked at within {THREAD_S_MAX:g} s, this node is "
            "busy with its rulesets; try again"
        ) from None
