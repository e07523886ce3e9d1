"""Nemeses of the services: servers that ail, and a router that does not see them.

A server that ails is no router's trouble: no address may move for it, and nobody but its own
clients may notice. A holder that alone reaches no server is blind: it has to hand over, and to
leave the servers in rotation.
"""

from __future__ import annotations

from chaos.faults.attack import Aim, Attack, Names, Nemesis
from chaos.faults.faults import Fault
from chaos.faults.outages import AgentSays, Blind, ServerAils, ServerFlaps
from chaos.lab.topology import SERVERS

FAST_S, SLOW_S = (0.35, 0.45), (2.0, 2.0)  # down and up: no verdict can follow; two must
# Longer than probes need: what meets it, the death of a router too, meets a server known as dead.
KNOWN_S = (2.0, 2.4)
SECOND: Names = ("holder", "holder", "one")
WORDS = ("50%", "drain", "maint", "up", "SSH-2.0-none of these words")
ONLY_SERVES = SERVERS[2]  # the others are clients, too: their cables stay


def _ails(aim: Aim, host: str, how: str) -> ServerAils:
    return ServerAils(aim.site.lab, host, how, aim.site.history(aim.site.name("server")))


def _attack(fault: Fault, host: str, detail: str) -> Attack:
    return Attack(fault, detail, (), start_limit="server", servers=(host,))


def _server_dead(aim: Aim) -> Attack:
    host = aim.draw.choice(SERVERS)
    hows = ("stopped", "killed", "unplugged") if host == ONLY_SERVES else ("stopped", "killed")
    how = aim.draw.choice(hows)
    return _attack(_ails(aim, host, how), host, f"{host} {how}")


def _server_slow(aim: Aim) -> Attack:
    host = aim.draw.choice(SERVERS)
    return _attack(_ails(aim, host, "slow"), host, host)


def _server_flaps(aim: Aim) -> Attack:
    host = aim.draw.choice(SERVERS)
    down_s, up_s = aim.draw.choice((FAST_S, SLOW_S))
    fault = ServerFlaps(_ails(aim, host, "stopped"), down_s, up_s)
    return _attack(fault, host, f"{host} {down_s:g} s down, {up_s:g} s up")


def _agent(aim: Aim) -> Attack:
    host, words = aim.draw.choice(SERVERS), aim.draw.choice(WORDS)
    fault = AgentSays(aim.site.lab, host, words, aim.site.history(aim.site.name("server")))
    return Attack(fault, f"{host} {words!r}", (), start_limit="noise", servers=(host,))


def _blind(aim: Aim) -> Attack:
    (name,) = aim.victims
    # Of a backup nothing follows: addresses move for nobody but a holder.
    nodes = aim.victims if aim.site.lab.holder() == name else ()
    return Attack(Blind(aim.site.net(), name), name, nodes, start_limit="release")


NEMESES = (
    Nemesis("server-dead", "a server's process is stopped or killed, or its cable pulled", ("all",),
            _server_dead, (2.8, 3.4), pairs=True, apart_s=KNOWN_S, second=SECOND),
    Nemesis("server-slow", "a server answers later than its checks wait", ("all",), _server_slow,
            (2.8, 3.4), pairs=True, apart_s=KNOWN_S, second=SECOND),
    Nemesis("server-flaps", "a server is down and up, faster or slower than checks", ("all",),
            _server_flaps, (7.5, 8.0)),
    Nemesis("agent", "a server's agent says half of its weight, drain, maint, up, or no word",
            ("all",), _agent, (2.8, 3.4)),
    Nemesis("blind-holder", "the holder's own packets reach no server, its clients' do",
            ("holder", "holder", "backup"), _blind, (3.5, 4.0)),
)  # fmt: skip
