"""What may happen to a cluster: the commands of a transcript that do something."""

from __future__ import annotations

import re
from collections.abc import Callable
from errno import EIO, ENOSPC
from itertools import chain

from hanat.core import inputs as told
from hanat.core.server_facts import Administrative, Mode, ServerId
from tests.scenarios.stage import Call, Stage, TranscriptError, seconds
from tests.sim.clocks import slew
from tests.sim.storage import SLOW_S, WORK_S, lose_journal

Command = Callable[[Stage, Call], list[str]]
COMMANDS: dict[str, Command] = {}
WITHIN = "10s"
COMMIT_S = 1.0


def command(call: Command) -> Command:
    """Add a command by the name of its function."""
    COMMANDS[call.__name__.rstrip("_").replace("_", "-")] = call
    return call


def _each(stage: Stage, call: Call, item: told.Input) -> list[str]:
    """Tell nodes something."""
    for router in stage.named(call):
        stage.world.on(router, router.feed, item)
    return []


# ----------------------------------------------------------------------- time


@command
def run(stage: Stage, call: Call) -> list[str]:
    """``run 500ms``: let time pass."""
    stage.world.run(seconds(call.word(0, "how long")))
    return []


@command
def until(stage: Stage, call: Call) -> list[str]:
    """``until holder [r1] | nobody | settled | NODE ROLE | clients web1 ...``: wait for that."""
    what, words = call.word(0, "what"), call.words[1:]
    within_s = seconds(call.options.get("within", WITHIN))
    reached: Callable[[], bool]
    match what:
        case "holder":
            names = words or tuple(stage.routers)
            reached = lambda: stage.holder is not None and stage.holder.name in names  # noqa: E731
        case "nobody":
            reached = lambda: not any(map(stage.answers, stage.routers.values()))  # noqa: E731
        case "settled":
            reached = stage.settled
        case "clients":
            reached = lambda: all(r.clients == set(words) for r in stage.present)  # noqa: E731
        case _:
            router, role = stage.router(what), call.word(1, "a role")
            reached = lambda: router.role is not None and router.role.value == role  # noqa: E731
    return stage.wait(reached, within_s)


# ----------------------------------------------------------------------- life


@command
def start(stage: Stage, call: Call) -> list[str]:
    """``start r1 ...``: start daemons; ``members=r1,r2`` with another list of members."""
    for router in stage.named(call):
        if (names := call.options.get("members")) is not None:
            router.members = tuple(stage.router(name).node_id for name in names.split(","))
        router.start()
    return []


@command
def stop(stage: Stage, call: Call) -> list[str]:
    """``stop r1 ...``: tell daemons to end, as systemctl stop does; wait until they have."""
    routers = stage.named(call)
    _each(stage, call, told.ShutdownRequested())
    return stage.wait(lambda: not any(router.alive for router in routers), 10.0)


@command
def kill(stage: Stage, call: Call) -> list[str]:
    """``kill r1 ...``: daemon and supervisor end at once; the kernel keeps what it has."""
    for router in stage.named(call):
        router.kill()
    return []


@command
def crash(stage: Stage, call: Call) -> list[str]:
    """``crash r1``: the daemon ends; its supervisor notices, and says so to the others."""
    for router in stage.named(call):
        router.crash(noticed_s=0.001)
    return []


@command
def cut_power(stage: Stage, call: Call) -> list[str]:
    """``cut-power r1 ...``: the whole machine ends."""
    for router in stage.named(call):
        router.lose_power()
    return []


@command
def pause(stage: Stage, call: Call) -> list[str]:
    """``pause r1``: the daemon stands still until ``resume``; not the kernel."""
    for router in stage.named(call):
        router.freeze()
    return []


@command
def resume(stage: Stage, call: Call) -> list[str]:
    """``resume r1``: the daemon goes on."""
    for router in stage.named(call):
        router.thaw()
    return []


@command
def forget(stage: Stage, call: Call) -> list[str]:
    """``forget r1``: the log of a node that does not run is moved away."""
    for router in stage.named(call):
        lose_journal(router)
    return []


# -------------------------------------------------------------------- network


@command
def cut(stage: Stage, call: Call) -> list[str]:
    """``cut r1``: from all others; ``cut r1 r2``: from one; ``cut r1->r2``: only that way."""
    one, arrow, other = call.word(0, "which node").partition("->")
    source = stage.router(one)
    if arrow:
        pairs = [(source.node_id, stage.router(other).node_id)]
    else:
        others = [stage.router(n) for n in call.words[1:]] or list(stage.routers.values())
        ends = [o.node_id for o in others if o is not source]
        pairs = list(chain.from_iterable(((source.node_id, o), (o, source.node_id)) for o in ends))
    for pair in pairs:
        stage.heals.append((frozenset(pair), stage.world.block(*pair)))
    return []


@command
def heal(stage: Stage, call: Call) -> list[str]:
    """``heal``: the whole network; ``heal r1``: what was cut from that node."""
    wanted = {r.node_id for r in stage.named(call)} if call.words else set(stage.world.node_ids)
    healed = [entry for entry in stage.heals if entry[0] & wanted]
    stage.heals = [entry for entry in stage.heals if not entry[0] & wanted]
    for _, end in healed:
        end()
    return []


@command
def carrier(stage: Stage, call: Call) -> list[str]:
    """``carrier r1 ... public=lost``, or ``public=back``."""
    for interface, state in call.options.items():
        _each(stage, call, told.CarrierObserved(interface, _choice(state, "back", "lost")))
    return []


@command
def silence(stage: Stage, call: Call) -> list[str]:
    """``silence r1 ...``: the public network carries nothing for it, behind a live carrier."""
    stage.paths.deaf |= {router.node_id for router in stage.named(call)}
    return []


@command
def sound(stage: Stage, call: Call) -> list[str]:
    """``sound r1 ...``: it does again."""
    stage.paths.deaf -= {router.node_id for router in stage.named(call)}
    return []


# -------------------------------------------------------------------- machine


@command
def disk(stage: Stage, call: Call) -> list[str]:
    """``disk r1 ... state=full | broken | slow | mended``.

    Full: log and snapshots take nothing, term and vote do, whose room is taken in advance.
    Broken: nothing is taken.
    """
    state = call.options.get("state", "")
    if state not in {"full", "broken", "slow", "mended"}:
        raise TranscriptError(f'disk: "{state}" is no state: full, broken, slow or mended')
    for router in stage.named(call):
        router.disk.work_s = router.snapshot_disk.work_s = SLOW_S if state == "slow" else WORK_S
        router.journal.disk.failing = router.store.failing = state in {"full", "broken"}
        router.journal.disk.error = router.store.error = ENOSPC if state == "full" else EIO
        router.journal.facts.failing = state == "broken"
    return []


@command
def kernel(stage: Stage, call: Call) -> list[str]:
    """``kernel r1 ... rulesets=refused``: no new ruleset is taken there; or ``taken``."""
    for router in stage.named(call):
        router.kernel.stubborn = not _choice(call.options.get("rulesets", ""), "taken", "refused")
    return []


@command
def flush(stage: Stage, call: Call) -> list[str]:
    """``flush r1``: another program removes the tables of hanat, and the daemon sees it."""
    return _each(stage, call, told.RulesetDrifted(("table inet hanat_gate is gone",)))


@command
def remove(stage: Stage, call: Call) -> list[str]:
    """``remove r1``: another program takes the floating addresses off the public device."""
    for router in stage.named(call):
        gone = tuple(
            address
            for vip in router.configuration.vips
            for address in vip.addresses
            if vip.interface == "public"
        )
        stage.world.on(router, router.feed, told.RemovalObserved("public", gone))
    return []


@command
def clock(stage: Stage, call: Call) -> list[str]:
    """``clock r1 rate=1.1``: the time daemon slews a clock by so much; 1 for not at all."""
    for router in stage.named(call):
        rate = float(call.options["rate"])
        slew(router, router.raw_rate * rate)
    return []


# ------------------------------------------------------------ servers, clients


@command
def server(stage: Stage, call: Call) -> list[str]:
    """``server web1 ... state=down``, or ``up``: whether it answers."""
    if _choice(call.options.get("state", ""), "up", "down"):
        stage.network.down -= set(call.words)
    else:
        stage.network.down |= set(call.words)
    return []


@command
def blind(stage: Stage, call: Call) -> list[str]:
    """``blind r1 ...``: it reaches no server."""
    stage.network.blind |= {router.node_id for router in stage.named(call)}
    return []


@command
def sight(stage: Stage, call: Call) -> list[str]:
    """``sight r1 ...``: it reaches servers again."""
    stage.network.blind -= {router.node_id for router in stage.named(call)}
    return []


@command
def connect(stage: Stage, call: Call) -> list[str]:
    """``connect 5``: so many clients connect through the holder; their flows go into the log."""
    holder = stage.holder
    if holder is None:
        return ["nobody answers the clients"]
    numbers = range(stage.connections, stage.connections + int(call.word(0, "how many")))
    stage.connections = numbers.stop
    for number in numbers:
        holder.propose(number)
    stage.world.run_until(lambda: stage.world.acknowledged.issuperset(numbers), within_s=COMMIT_S)
    kept = len(stage.world.acknowledged.intersection(numbers))
    return [f"{kept} of {len(numbers)} flows are in the log of a majority"]


# ----------------------------------------------------------------- operators


@command
def switchover(stage: Stage, call: Call) -> list[str]:
    """``switchover [to=r2] [ask=r1]``: hanat switchover."""
    backend = stage.asked(call).backend
    assert backend is not None, "a node that does not run was asked"
    answer, found = stage.operate(backend.switchover(call.options.get("to")))
    return found or [f"{answer} holds the addresses"]


@command
def configure(stage: Stage, call: Call) -> list[str]:
    """``configure key=value ... [ask=r1] [force=yes] [based-on=1]``: hanat config apply.

    Whatever the file has under that key gets the value.
    """
    router = stage.asked(call)
    assert router.backend is not None, "a node that does not run was asked"
    shown = router.backend.configuration()
    text = shown.text
    for key, value in call.options.items():
        if key not in {"ask", "force", "based-on"}:
            text = re.sub(rf'(?m)^(\s*{key} = )"[^"]*"', rf'\1"{value}"', text)
    revision = int(call.options.get("based-on", shown.revision))
    force = call.options.get("force") == "yes"
    order = router.backend.change(text, revision, dry_run=False, force=force)
    answer, found = stage.operate(order)
    if found:
        return found
    states = ", ".join(f"{node['node']} {node['state']}" for node in answer.get("nodes", ()))
    return [*answer["changes"], f"revision {answer['revision']}: {states or 'nothing changes'}"]


def _administer(mode: Mode) -> Command:
    def give(stage: Stage, call: Call) -> list[str]:
        router, found = stage.asked(call), []
        for name in call.words:
            since_s = router.servers.wall_s
            lasts_s = seconds(call.options["for"]) if "for" in call.options else None
            until_s = None if lasts_s is None else since_s + lasts_s
            wanted = Administrative(
                mode, "operator", call.options.get("reason", ""), since_s, until_s
            )
            order = router.servers.orders.administer(ServerId("web", name), wanted)
            found += stage.operate(order)[1]
        return found

    return give


COMMANDS |= {mode.value: _administer(mode) for mode in Mode}


def _choice(word: str, yes: str, no: str) -> bool:
    if word not in {yes, no}:
        raise TranscriptError(f'"{word}" is neither {yes} nor {no}')
    return word == yes
