"""The checks of a service: what each kind becomes, and every way a table can be wrong."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from hanat.config import parse_cluster
from hanat.config.check_fields import KINDS
from hanat.config.check_options import OWN, SHARED, WITHOUT
from hanat.config.models import CheckTable
from hanat.core.checks import (
    AgentCheck,
    DnsCheck,
    HttpCheck,
    Kind,
    Pattern,
    PingCheck,
    ScriptCheck,
    ServiceCheck,
    TcpCheck,
    TlsCheck,
    UdpCheck,
)
from hanat.core.probing import Check
from tests.config.helpers import EVERYTHING, changed, checked, problems_of, service

DIGEST = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
NEEDED = {"script": 'name = "x"', "agent": "port = 9"}  # what a kind cannot be without


def parsed(check: str) -> ServiceCheck:
    (found,) = parse_cluster(checked(check), file="it").services[0].checks
    return found


def problem_of(check: str) -> str:
    """Return the only problem of a check, without the place of its table."""
    (problem,) = problems_of(checked(check))
    assert problem.startswith("service[0].check[0]"), problem
    return problem.removeprefix("service[0].check[0]").removeprefix(".")


def test_every_key_becomes_its_value() -> None:
    web, dns = parse_cluster(EVERYTHING, file="it").services
    often, calm = Check(2.0, 1.0), Check(5.0, 3.0, fall=2, rise=4, fast_interval_s=0.5)
    statuses = ((200, 299), (401, 401))
    headers = (("Accept", "text/plain"), ("X-Probe", "hanat"))
    http = HttpCheck(
        "OPTIONS", "/health?full=1", "www.example.org:8080", headers, statuses,
        body=Pattern("ok"), digest=DIGEST,
    )  # fmt: skip
    https = HttpCheck(
        host="www.example.org", body=Pattern("^(ok|fine)$", is_regex=True),
        tls=TlsCheck("www.example.org", verify=True, warn_days=14),
    )  # fmt: skip

    assert web.checks == (
        ServiceCheck(http, calm, port=8080, mark=7),
        ServiceCheck(https, often, port=8443),
        ServiceCheck(
            TcpCheck(b"PING\r\n", b"+P"), often, ip_address("10.11.12.250"), 6379,
            ip_address("10.11.12.240"),
        ),
        ServiceCheck(TlsCheck("mail.example.org"), often, port=993),
        ServiceCheck(PingCheck(1000, 3), often),
        ServiceCheck(ScriptCheck("check-web.sh", ("--deep", "")), often, port=1),
        ServiceCheck(AgentCheck(b"web\n"), often, port=9999),
    )  # fmt: skip
    assert dns.checks == (
        ServiceCheck(DnsCheck("example.org.", "A", "NOERROR", "192.0.2.1", tcp=True), often),
        ServiceCheck(UdpCheck(b"\0", pattern=Pattern(".", is_regex=True)), often, port=5353),
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("tcp", TcpCheck()),
        ("udp", UdpCheck()),
        ("tls", TlsCheck()),
        ("http", HttpCheck()),
        ("https", HttpCheck(tls=TlsCheck())),
        ("dns", DnsCheck()),
        ("ping", PingCheck()),
        ("script", ScriptCheck("x")),
        ("agent", AgentCheck()),
    ],
)
def test_a_check_of_few_words_has_the_defaults_of_the_core(kind: str, expected: Kind) -> None:
    found = parsed(f'kind = "{kind}"\n{NEEDED.get(kind, "")}')

    assert (found.kind, found.timing) == (expected, Check(2.0, 1.0, fall=3, rise=2))


def test_a_timeout_that_is_not_written_ends_before_the_next_probe() -> None:
    assert parsed('kind = "tcp"\ninterval = "500ms"').timing.timeout_s == 0.5


def test_each_key_of_the_table_is_known_to_some_kind_and_each_option_is_a_key() -> None:
    keys = {field.alias or name for name, field in CheckTable.model_fields.items()}

    assert keys == SHARED.union(*OWN.values())
    assert tuple(OWN) == KINDS
    assert {key for keys in WITHOUT.values() for key in keys} <= SHARED


VALUES = {
    "send": '"x"', "expect": '"x"', "match": '"x"', "method": '"GET"', "path": '"/"',
    "host": '"x"', "headers": "{}", "status": '"200"', "body": '"x"', "digest": f'"{DIGEST}"',
    "sni": '"x"', "verify": "false", "warn": '"1d"', "name": '"x"', "type": '"A"',
    "rcode": '"NOERROR"', "answer": '"x"', "tcp": "false", "size": "1", "count": "1",
    "arguments": "[]", "port": "80", "mark": "1", "source": '"10.0.0.1"',
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", VALUES)
def test_an_option_of_another_kind_is_refused_with_those_that_have_it(kind: str, key: str) -> None:
    needed = NEEDED.get(kind, "") if not NEEDED.get(kind, "").startswith(f"{key} ") else ""
    text = f'kind = "{kind}"\n{needed}\n{key} = {VALUES[key]}'
    has_it = [
        k for k in KINDS if key in OWN[k] or (key in SHARED and key not in WITHOUT.get(k, {}))
    ]

    if kind in has_it:
        parsed(text)
    else:
        problem = problem_of(text)
        assert problem.startswith(f"{key}: is not an option of kind {kind}")
        assert problem.endswith(f", but of {', '.join(has_it)}")


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ('interval = "1s"', "kind: is missing"),
        (
            'kind = "smtp"',
            'kind: "smtp" is not a kind of check; they are tcp, udp, tls, http, https, dns, ping, '
            "script, agent",
        ),
        ('kind = "tcp"\nintervall = "1s"', 'intervall: unknown key; did you mean "interval"?'),
        # timing
        ('kind = "tcp"\ninterval = "99ms"', 'interval: must be from 100ms to 1h, found "99ms"'),
        ('kind = "tcp"\ninterval = "61m"', 'interval: must be from 100ms to 1h, found "61m"'),
        ('kind = "tcp"\ntimeout = "9ms"', 'timeout: must be from 10ms to 1h, found "9ms"'),
        (
            'kind = "tcp"\ntimeout = "3s"',
            "timeout: 3s is longer than interval (2s): a probe ends before the next begins; write "
            "a shorter timeout or a longer interval",
        ),
        (
            'kind = "tcp"\nfast_interval = "3s"',
            "fast_interval: 3s is longer than interval (2s): it is for the probes after a first "
            "failure; write a shorter one",
        ),
        (
            'kind = "script"\nname = "x"\ninterval = "500ms"',
            "interval: 500ms is too short for a script: each probe is a process; write at least "
            '"1s"',
        ),
        (
            'kind = "script"\nname = "x"\nfast_interval = "500ms"',
            "fast_interval: 500ms is too short for a script: each probe is a process; write at "
            'least "1s"',
        ),
        ('kind = "tcp"\nfall = 0', "fall: must be from 1 to 100, found 0"),
        ('kind = "tcp"\nrise = 101', "rise: must be from 1 to 100, found 101"),
        # whom
        ('kind = "tcp"\nport = 0', "port: must be from 1 to 65535, found 0"),
        ('kind = "tcp"\nmark = 4294967296', "mark: must be from 1 to 4294967295, found 4294967296"),
        ('kind = "tcp"\naddress = "web1"', 'address: "web1" is not an IPv4 or IPv6 address'),
        (
            'kind = "tcp"\naddress = "127.0.0.1"',
            'address: "127.0.0.1" is a loopback address, other machines cannot reach it',
        ),
        (
            'kind = "tcp"\naddress = "203.0.113.10"',
            'address: 203.0.113.10 is the floating address of vip "public" and moves; leave it out '
            "to ask the servers themselves",
        ),
        (
            'kind = "tcp"\nsource = "10.11.12.1"',
            'source: 10.11.12.1 is the floating address of vip "private" and moves; leave it out, '
            "each node probes from an address of its own",
        ),
        (
            'kind = "tcp"\nsource = "2001:db8:1::7"',
            'source: 2001:db8:1::7 is IPv6, and server "web-0" (10.11.12.101) is not; leave it '
            "out, or make a service for each family",
        ),
        (
            'kind = "tcp"\nsource = "10.0.0.1"\naddress = "2001:db8:1::7"',
            "source: 10.0.0.1 is IPv4, and 2001:db8:1::7, which is asked, is not; leave it out, or "
            "make a service for each family",
        ),
        # bytes
        ('kind = "tcp"\nsend = ""', "send: must not be empty"),
        (
            'kind = "tcp"\nsend = "hex:0g"',
            'send: "hex:0g" is not hexadecimal: write two digits a byte, "hex:0d0a"',
        ),
        ('kind = "udp"\nsend = "hex:"', "send: must have from 1 to 1400 bytes, found 0"),
        (
            f'kind = "udp"\nexpect = "{"x" * 1401}"',
            "expect: must have from 1 to 1400 bytes, found 1401",
        ),
        (
            'kind = "tcp"\nmatch = "(?=x)"',
            'match: "(?=x)" is not a regular expression of RE2: RE2 has no look-ahead: (?=',
        ),
        (
            'kind = "tcp"\nexpect = "x"\nmatch = "y"',
            "match: and expect both say what must come; write one of them",
        ),
        # http
        (
            'kind = "http"\nmethod = "get"',
            'method: "get" is not a method; they are GET, HEAD, OPTIONS, POST',
        ),
        (
            'kind = "http"\npath = "health"',
            'path: "health" is not a path: write it like "/health?full=1", from its slash on, '
            "without blanks; other characters as %20",
        ),
        (
            'kind = "http"\nhost = "a b"',
            'host: "a b" is not a host: write "www.example.org" or with its port',
        ),
        (
            'kind = "http"\nheaders = "A: b"',
            'headers: must be a table like { Accept = "text/plain" }, found "A: b"',
        ),
        ('kind = "http"\nheaders = { "A b" = "c" }', 'headers: "A b" is not the name of a header'),
        (
            'kind = "http"\nheaders = { Host = "x" }',
            "headers: Host is made by the check itself: write host",
        ),
        ('kind = "http"\nheaders = { A = "1", a = "2" }', "headers: a is there twice"),
        ('kind = "http"\nheaders = { A = "x\\ny" }', 'headers: A: "x\\ny" has control characters'),
        (
            'kind = "http"\nheaders = { A = "é" }',
            'headers: A: "é" has blanks around it, or other than ASCII',
        ),
        ('kind = "http"\nheaders = { A = 5 }', "headers: A: must be text in quotes, found 5"),
        (
            'kind = "http"\nheaders = { Authorization = { file = "/etc/hanat/token" } }',
            "headers: Authorization is a table; this version reads no secret from a file, write "
            "the value in quotes (whoever may see the configuration sees it)",
        ),
        (
            'kind = "http"\nheaders = { ' + ", ".join(f'A{n} = "1"' for n in range(17)) + " }",
            "headers: has 17 entries, at most 16 are possible",
        ),
        (
            'kind = "http"\nstatus = 200',
            'status: must be text in quotes, found 200; write "200", "200-299" or "200-299,401"',
        ),
        (
            'kind = "http"\nstatus = "299-200"',
            'status: "299-200" is not a status or a range of them: write "200-299,401", from 100 '
            "to 599, the lower one first",
        ),
        (
            'kind = "http"\nstatus = "2xx"',
            'status: "2xx" is not a status or a range of them: write "200-299,401", from 100 to '
            "599, the lower one first",
        ),
        (
            'kind = "http"\nbody = "x"\nmatch = "y"',
            "match: and body both say what must come; write one of them",
        ),
        (
            'kind = "http"\nmethod = "HEAD"\nbody = "x"',
            'body: a HEAD is answered without a body; write method = "GET", or leave it out',
        ),
        (
            'kind = "http"\ndigest = "640205b7b0fc66c1ea91c463fac6334d"',
            'digest: "640205b7b0fc66c1ea91c463fac6334d" is not a SHA-256 of 64 hexadecimal digits '
            "(32 digits are MD5, as keepalived's genhash makes it): run \"curl -s URL | "
            'sha256sum"',
        ),
        # tls
        (
            'kind = "tls"\nsni = "192.0.2.1"',
            'sni: "192.0.2.1" is an address; a handshake asks for a name (RFC 6066)',
        ),
        ('kind = "tls"\nverify = 1', "verify: must be true or false, found 1"),
        (
            'kind = "tls"\nverify = true',
            "verify: for which name must the certificate be valid? write sni",
        ),
        (
            'kind = "https"\nhost = "[2001:db8::1]:443"\nverify = true',
            "verify: for which name must the certificate be valid? write sni or host",
        ),
        ('kind = "tls"\nwarn = "2w"', 'warn: "2w" is not a number of days: write "1d" to "365d"'),
        (
            'kind = "tls"\nwarn = "366d"',
            'warn: "366d" is not a number of days: write "1d" to "365d"',
        ),
        # dns
        (
            'kind = "dns"\nname = "a..b"',
            'name: "a..b" is not a name to ask for: write "www.example.org" or "."',
        ),
        (
            'kind = "dns"\ntype = "ANY"',
            'type: "ANY" is not a type of record; they are A, AAAA, CAA, CNAME, DNSKEY, DS, HTTPS, '
            "MX, NS, PTR, SOA, SRV, SVCB, TXT",
        ),
        (
            'kind = "dns"\nrcode = "noerror"',
            'rcode: "noerror" is not a response code; they are NOERROR, FORMERR, SERVFAIL, '
            "NXDOMAIN, NOTIMP, REFUSED",
        ),
        (
            'kind = "dns"\nrcode = "NXDOMAIN"\nanswer = "192.0.2.1"',
            "answer: with rcode NXDOMAIN there is no answer; leave one of them out",
        ),
        # ping
        ('kind = "ping"\nsize = 1401', "size: must be from 0 to 1400, found 1401"),
        ('kind = "ping"\ncount = 0', "count: must be from 1 to 10, found 0"),
        # script
        ('kind = "script"', "name: is missing: the file's name of the script"),
        (
            'kind = "script"\nname = "/usr/local/bin/check"',
            "name: \"/usr/local/bin/check\" is a path: write the file's name alone; each node's "
            "node.toml says in which folder scripts are ([checker] scripts)",
        ),
        (
            'kind = "script"\nname = ".."',
            'name: ".." is not the name of a script: up to 63 letters, digits, dots, underscores '
            "or hyphens, a letter or digit first",
        ),
        (
            'kind = "script"\nname = "x"\narguments = "-v"',
            'arguments: must be a list, found "-v"',
        ),
        (
            'kind = "script"\nname = "x"\narguments = ["a\\u0000"]',
            'arguments[0]: "a\\u0000" has control characters',
        ),
        # agent
        ('kind = "agent"', "port: is missing: an agent listens on a port of its own"),
    ],
)
def test_wrong_checks_are_refused(
    check: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hanat.config.patterns.HAS_RE2", False)

    assert problem_of(check) == expected


def test_an_option_that_a_kind_cannot_have_is_refused_with_the_reason() -> None:
    assert problem_of('kind = "ping"\nport = 80') == (
        "port: is not an option of kind ping (a ping has no port), but of tcp, udp, tls, http, "
        "https, dns, script, agent"
    )


def test_a_port_is_asked_for_where_servers_keep_the_clients_and_there_are_several() -> None:
    check = 'kind = "tcp"'
    expected = (
        'service[0].check[0].port: is missing: server "web-0" keeps the port that a client asked '
        "for, and the service listens on several ({}); write the one to ask"
    )
    for listen, ports in (
        ("vip:public tcp/80-90", "80-90"),
        ("vip:public tcp/80, vip:public udp/443", "80, 443"),
    ):
        text = checked(check, listen=listen, server="10.11.12.101")
        assert problems_of(text) == [expected.format(ports)]
        parse_cluster(changed(text, check, f"{check}\nport = 80"), file="it")
        parse_cluster(changed(text, check, 'kind = "ping"'), file="it")
        parse_cluster(checked(check, listen=listen), file="it")
    one = checked(check, listen="vip:public tcp/80, vip:public udp/80", server="10.11.12.101")
    (service,) = parse_cluster(one, file="it").services
    assert service.targets_of(service.servers[0])[0].port == 80


def test_several_checks_hold_and_none_is_there_twice() -> None:
    text = checked('kind = "tcp"')
    more = text + '[[service.check]]\nkind = "ping"\n'

    assert len(parse_cluster(more, file="it").services[0].checks) == 2
    assert problems_of(text + '[[service.check]]\nkind = "tcp"\ninterval = "2s"\n') == [
        "service[0].check[1]: is the same as check[0] of this service; leave it out"
    ]
    wrong = text + '[[service.check]]\nkind = "tcp"\nport = 0\n'
    assert problems_of(wrong) == ["service[0].check[1].port: must be from 1 to 65535, found 0"]


def test_equal_checks_of_services_are_equal_whatever_their_notation() -> None:
    notations = (
        'kind = "http"\nstatus = "200,201-299"\nheaders = { B = "2", A = "1" }\ninterval = "2s"',
        'kind = "http"\nheaders = { A = "1", B = "2" }\nstatus = "200-250, 240-299"',
    )

    assert len({parsed(text) for text in notations}) == 1


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("www.example.org", "www.example.org"),
        ("www.example.org:8443", "www.example.org"),
        ("192.0.2.1:8443", ""),
        ("[2001:db8::1]:8443", ""),
    ],
)
def test_a_handshake_asks_for_the_host_if_that_is_a_name(host: str, name: str) -> None:
    found = parsed(f'kind = "https"\nhost = "{host}"')
    other = parsed(f'kind = "https"\nhost = "{host}"\nsni = "other.example.org"')

    assert isinstance(found.kind, HttpCheck)
    assert isinstance(other.kind, HttpCheck)
    assert found.kind.tls == TlsCheck(name)
    assert other.kind.tls == TlsCheck("other.example.org")


def test_a_source_goes_with_servers_of_its_family() -> None:
    text = checked('kind = "tcp"\nsource = "10.0.0.1"')
    both = changed(
        text, "[[service.check]]",
        '[[service.server]]\nname = "six"\naddress = "[2001:db8:1::1]:80"\n[[service.check]]',
    )  # fmt: skip

    assert parse_cluster(text, file="it").services[0].checks[0].source == ip_address("10.0.0.1")
    (problem,) = problems_of(both)
    assert problem.startswith('service[0].check[0].source: 10.0.0.1 is IPv4, and server "six"')


def test_all_problems_of_all_checks_are_reported_at_once() -> None:
    text = checked('kind = "http"\npath = "x"\nstatus = "600"\ninterval = "1s"\ntimeout = "2s"')
    text += '[[service.check]]\nkind = "ping"\nport = 1\nfall = 0\n'
    text += '[[service.check]]\ninterval = "1s"\n'
    text += OTHER.replace("tcp/80", "tcp/81")

    assert [line.partition(": ")[0] for line in problems_of(text)] == [
        "service[0].check[0].path",
        "service[0].check[0].status",
        "service[0].check[0].timeout",
        "service[0].check[1].port",
        "service[0].check[1].fall",
        "service[0].check[2].kind",
        "service[1].check[0].verify",
    ]


OTHER = (
    service("vip:public tcp/80", "10.11.12.103:80", name="other")
    + '[[service.check]]\nkind = "tls"\nverify = true\n'
)
