"""Services and servers as lines of text; documents as of ``/v1/services``.

They may come from another version of hanat: whatever is missing is shown as ``-``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hanat.cli.api_client import request
from hanat.cli.command_errors import CommandError
from hanat.cli.status_text import Row, duration, size, table, text

TIMEOUT_S = 10.0  # the node answers from memory; thousands of servers take a second
SUMS_HEAD = ("NEW/S", "TOTAL", "IN", "OUT")
SERVICE_HEAD = ("SERVICE", "STATE", "LISTEN", "SCHEDULER", "HEALTHY", "CONNECTIONS", *SUMS_HEAD)
SERVER_HEAD = (
    "SERVER",
    "ADDRESS",
    "CHECKS",
    "MODE",
    "WEIGHT",
    "SHARE",
    "CONNECTIONS",
    *SUMS_HEAD,
    "NEW CLIENTS",
)
OLD_S = 5.0  # sums that are older than that say so

Document = Mapping[str, Any]


def ask(api: str, path: str) -> Document:
    """Return what a node answers to a path below ``/v1/services``, an object.

    Raises:
        CommandError: As `request`, or it is something else.
    """
    return demand_object(api, request(api, "GET", f"/v1/services{path}", timeout_s=TIMEOUT_S))


def ask_all(api: str) -> list[Document]:
    """Return all services."""
    services = ask(api, "").get("services")
    if not isinstance(services, list) or not all(isinstance(s, Mapping) for s in services):
        raise CommandError(f"asked {api}: the answer has no services")
    return services


def demand_object(api: str, answer: object) -> Document:
    """Return an answer, which must have a name.

    Raises:
        CommandError: It is something else.
    """
    if not isinstance(answer, Mapping) or not ("name" in answer or "services" in answer):
        raise CommandError(f"asked {api}: the answer is not about services")
    return answer


def service_table(services: Iterable[Document]) -> list[str]:
    """Return a line for each service."""
    return table(SERVICE_HEAD, [_service_row(service) for service in services])


def _service_row(service: Document) -> Row:
    return (
        text(service.get("name")),
        text(service.get("state")),
        _listed(service.get("listen")),
        text(service.get("scheduler")),
        f"{text(service.get('healthy'))} of {text(service.get('candidates'))}",
        text(service.get("connections")),
        *_sums(service),
    )


def _sums(shown: Document) -> Row:
    """Return new connections a second, all there were, and bytes each way."""
    totals = _part(shown, "totals")
    rate = totals.get("connections_per_s")
    return (
        f"{rate:.4g}" if isinstance(rate, int | float) else "-",
        text(totals.get("connections")),
        size(totals.get("bytes_in")),
        size(totals.get("bytes_out")),
    )


def _sums_facts(shown: Document) -> list[tuple[str, str]]:
    """Return the same in words."""
    totals = _part(shown, "totals")
    if not totals:
        return []
    rate, total, _, _ = _sums(shown)
    since = f" since {text(totals['since'])}" if totals.get("since") else ""
    facts = [("new", f"{rate} a second; {total}{since}")]
    if totals.get("bytes_in") is None:
        traffic = "not known: net.netfilter.nf_conntrack_acct is not 1 on the holder"
    else:
        ways = {way: size(totals.get(f"bytes_{way}")) for way in ("in", "out")}
        traffic = ", ".join(
            f"{way} {amount} in {text(totals.get(f'packets_{way}'))} packets"
            for way, amount in ways.items()
        )
    facts.append(("traffic", traffic))
    age_s = totals.get("age_s")
    if isinstance(age_s, int | float) and age_s >= OLD_S:
        facts.append(("counted", f"{duration(age_s)} ago; the holder says nothing newer"))
    return facts


def service_lines(service: Document) -> list[str]:
    """Return one service with its servers."""
    servers = servers_of(service)
    facts = [
        ("state", text(service.get("state"))),
        ("why", text(service.get("why"))),
        ("listen", _listed(service.get("listen"))),
        ("scheduler", text(service.get("scheduler"))),
        (
            "healthy",
            f"{text(service.get('healthy'))} of {text(service.get('candidates'))} that should "
            f"serve; panic below {text(service.get('min_healthy_percent'))} %",
        ),
        ("connections", text(service.get("connections"))),
        ("refused", _refused(service)),
        *_sums_facts(service),
        ("datagrams", _datagrams(servers)),
    ]
    return [
        text(service.get("name")),
        *(f"{name:<11} {value}" for name, value in facts if value != "-"),
        "",
        *server_table((text(server.get("name")), server) for server in servers),
        *_sentences(servers),
    ]


def _refused(service: Document) -> str:
    """Say how many first packets each limit dropped; a dash if there is no limit."""
    counts = _part(service, "refused")
    found = ", ".join(f"{text(count)} {limit}" for limit, count in counts.items())
    return f"{found} (by this node)" if found else "-"


def _datagrams(servers: Iterable[Document]) -> str:
    """Say how many datagrams passed without a flow; a dash if the service has flows."""
    found = [one for server in servers if (one := _part(server, "datagrams"))]
    if not found:
        return "-"
    there, back = (
        sum(count for one in found if isinstance(count := one.get(way), int))
        for way in ("to_server", "to_clients")
    )
    return f"{there} to servers, {back} to clients (by this node)"


def _sentences(servers: Iterable[Document]) -> list[str]:
    found = [text(server["why"]) for server in servers if server.get("why")]
    return ["", *found] if found else []


def servers_of(service: Document) -> list[Document]:
    """Return the servers of a service."""
    servers = service.get("servers")
    return [s for s in servers if isinstance(s, Mapping)] if isinstance(servers, list) else []


def server_table(servers: Iterable[tuple[str, Document]]) -> list[str]:
    """Return a line for each server, under a name."""
    return table(SERVER_HEAD, [_server_row(name, server) for name, server in servers])


def _server_row(name: str, server: Document) -> Row:
    return (
        name,
        text(server.get("address")),
        text(_part(server, "operational").get("state")),
        text(_part(server, "administrative").get("mode")),
        text(_part(server, "runtime").get("weight")),
        _percent(server.get("share_percent")),
        text(server.get("connections")),
        *_sums(server),
        _new_clients(server),
    )


def _new_clients(server: Document) -> str:
    gets, condition = server.get("gets_clients"), text(server.get("condition"))
    if not isinstance(gets, bool):
        return "-"
    if gets:
        return "yes" if condition == "serving" else f"yes: {condition}"
    return f"no: {condition}"


def server_lines(server: Document) -> list[str]:
    """Return all about one server: first, in a sentence, whether it gets clients, and why not."""
    runtime = _part(server, "runtime")
    weight = text(_part(server, "configured").get("weight"))
    if runtime.get("factor") not in {None, 1}:
        weight = f"{text(runtime.get('weight'))}: {weight} x {text(runtime.get('factor'))}"
    facts = [
        ("address", text(server.get("address"))),
        ("mode", mode_words(server)),
        ("weight", f"{weight}, {_percent(server.get('share_percent'))} of the new clients"),
        ("connections", _connections(server)),
        *_sums_facts(server),
        ("datagrams", _datagrams([server])),
        ("checks", text(_part(server, "operational").get("state"))),
    ]
    checks = _part(server, "operational").get("checks")
    found = [c for c in checks if isinstance(c, Mapping)] if isinstance(checks, list) else []
    return [
        sentence(server),
        *(f"{name:<11} {value}" for name, value in facts if (name, value) != ("datagrams", "-")),
        *(line for check in found for line in _check_lines(check)),
    ]


def _connections(server: Document) -> str:
    most, connections = _part(server, "configured").get("max_conn"), text(server.get("connections"))
    if most is None:
        return connections
    times = text(_part(server, "runtime").get("times_full"))
    return f"{connections} of at most {text(most)}; had all of them {times} times (by this node)"


def sentence(server: Document) -> str:
    """Say whether a server gets clients, and why not."""
    if server.get("why"):
        return text(server["why"])
    name = f"{text(server.get('service'))}/{text(server.get('name'))}"
    if server.get("gets_clients") is True:
        return f"{name} gets {_percent(server.get('share_percent'))} of the new clients"
    return f"{name} gets no clients"


def mode_words(server: Document) -> str:
    """Say what operators made of a server, by whom, when, until when and why."""
    record = _part(server, "administrative")
    words = [text(record.get("mode"))]
    words += [f"by {text(record['by'])}"] if record.get("by") else []
    for key in ("since", "until"):
        words += [f"{key} {text(record[key])}"] if record.get(key) else []
    words += [f"({text(record['reason'])})"] if record.get("reason") else []
    return " ".join(words)


def _check_lines(check: Document) -> list[str]:
    lines = ["", text(check.get("target"))]
    if check.get("for_s") is None:
        lines.append("  verdict  none yet")
    else:
        lines.append(
            f"  verdict  {text(check.get('state'))} for {duration(check.get('for_s'))}: "
            f"{text(check.get('answer'))}, {text(check.get('in_a_row'))} in a row, "
            f"{duration(check.get('latency_s'))}; by {text(check.get('decided_by'))}"
        )
    nodes = _part(check, "nodes")
    if nodes:
        seen = ", ".join(f"{text(name)} {text(state)}" for name, state in nodes.items())
        lines.append(f"  seen     {seen}")
    if probe := _part(check, "probe"):
        lines.append(
            f"  here     {'ok' if probe.get('ok') is True else 'failed'} "
            f"{duration(probe.get('ago_s'))} ago: {text(probe.get('answer'))}, "
            f"{text(probe.get('in_a_row'))} in a row, {duration(probe.get('latency_s'))}"
        )
    if check.get("note"):
        lines.append(f"  note     {text(check['note'])}")
    return lines


def _listed(value: object) -> str:
    return text(", ".join(map(str, value))) if isinstance(value, list) else "-"


def _part(document: Document, key: str) -> Document:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _percent(value: object) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "-"
    return f"{value:.4g} %" if value < 99.95 else f"{value:.0f} %"
