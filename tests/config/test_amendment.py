"""A text that was nearly read before: it means what it means when all of it is read."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanat.config import amended, amendment, parse_cluster
from hanat.config.amendment import CHANGED_BYTES_MAX
from hanat.config.limits import CLUSTER_LIMITS, CLUSTER_TOTALS
from hanat.core.configuration import Configuration
from hanat.errors import ConfigError
from tests.config.helpers import EVERYTHING, SMALL, changed

TRANSIT = '[[transit]]\nname = "vpn"\nnetwork = ["10.99.0.0/16"]\n'


def service(number: int, *, port: int | None = None, weight: int = 1) -> str:
    return f"""
[[service]]
name = "s{number}"
listen = ["vip:public tcp/{port or 100 * number + 1000}-{port or 100 * number + 1099}"]
scheduler = "fo"
sorry = "10.11.12.{number + 200}:80"
persistence = {{ timeout = "10m", netmask = 24 }}
  [[service.check]]
  kind = "http"
  path = "/{number}"
  interval = "{number + 2}s"
  [[service.server]]
  name = "one"
  address = "10.11.12.{number + 100}:80"
  weight = {weight}
  priority = 1
  [[service.server]]
  name = "two"
  address = "[2001:db8:1::{number + 1}]:80"
"""


BEFORE = SMALL + "".join(map(service, range(6)))
KNOWN = parse_cluster(BEFORE, file="it")


def found(text: str, before: str = BEFORE) -> Configuration | None:
    return amended(text, known_text=before, known=parse_cluster(before, file="it"))


@pytest.mark.parametrize(
    "text",
    [
        BEFORE,
        changed(BEFORE, "weight = 1", "weight = 7"),
        BEFORE + service(6),
        BEFORE.replace(service(2), ""),
        BEFORE.replace(service(2), service(6) + service(7)),
        BEFORE.replace("tcp/1200-1299", "udp/1000-1099"),
        BEFORE.replace("tcp/1200-1299", "tcp/1210-1220"),
        changed(BEFORE, "priority = 1", "priority = 3"),
        changed(BEFORE, 'path = "/0"', 'path = "/0"\nstatus = "200"'),
        changed(BEFORE, 'kind = "http"\n  path = "/0"', 'kind = "ping"'),
        changed(BEFORE, "netmask = 24", "netmask6 = 48"),
        changed(BEFORE, 'sorry = "10.11.12.200:80"\n', "min_healthy = '30%'\n"),
    ],
)
def test_what_changed_in_services_is_known_without_the_rest(text: str) -> None:
    assert found(text) == parse_cluster(text, file="it")


def test_services_that_did_not_change_are_the_same_objects() -> None:
    known = parse_cluster(BEFORE, file="it")
    after = amended(changed(BEFORE, "weight = 1", "weight = 7"), known_text=BEFORE, known=known)
    assert after is not None
    assert all(a is b for a, b in zip(after.services[1:], known.services[1:], strict=True))


@pytest.mark.parametrize(
    "text",
    [
        BEFORE + service(3),  # its name is taken
        BEFORE + service(6, port=1234),  # its port is
        BEFORE.replace("tcp/1200-1299", "tcp/1250-1350"),
        BEFORE.replace("10.11.12.102:80", "10.11.12.1:80"),  # a floating address
        BEFORE.replace("vip:public tcp/1200", "vip:pubic tcp/1200"),
        BEFORE.replace("10.11.12.202:80", "10.11.12.1:80"),  # of a sorry server
        BEFORE.replace("10.11.12.202:80", "10.11.12.102:80"),
        changed(BEFORE, 'scheduler = "fo"', 'scheduler = "rr"'),
        changed(BEFORE, 'path = "/0"', 'send = "/0"'),
        changed(BEFORE, 'interval = "2s"', 'timeout = "5s"'),
        changed(BEFORE, "weight = 1", "weight = -1"),
        changed(BEFORE, "weight = 1", "wait = 1"),
        changed(BEFORE, "weight = 1", 'weight = """'),
        changed(BEFORE, "weight = 1", "weight = ["),
        BEFORE + "[cluster]\n",
        BEFORE.replace(service(2), "\n[[service]]\n"),
        BEFORE + "\n[[service]]\n",
        BEFORE + service(6) + '[service.oh]\nname = "x"\n',
        BEFORE.removesuffix(service(5)) + "\r",
    ],
)
def test_what_is_wrong_is_left_to_those_who_can_tell_what(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_cluster(text, file="it")
    assert found(text) is None


@pytest.mark.parametrize(
    "text",
    [
        BEFORE.replace("edge1", "edge2"),
        BEFORE + TRANSIT,  # in the piece of the last service
        BEFORE.replace(service(2) + service(3), service(3) + service(2)),
        BEFORE.replace("[[service]]", "[[ service ]]", 1),
        BEFORE + "".join(service(n) for n in range(6, 6 + CHANGED_BYTES_MAX // 300)),
        changed(BEFORE, "weight = 1", "weight = 1\n# \"\"\" '''"),
    ],
)
def test_what_is_unusual_is_read_as_a_whole(text: str) -> None:
    parse_cluster(text, file="it")
    assert found(text) is None


def test_tables_behind_services_stay_what_they_were() -> None:
    before = SMALL + service(0) + TRANSIT + service(1) + service(2)
    kept = before.replace("10.11.12.102:80", "10.11.12.152:80")
    assert found(kept, before) == parse_cluster(kept, file="it")
    fewer = before.replace(service(1), "")
    assert found(fewer, before) == parse_cluster(fewer, file="it")
    for text in (before.replace(service(0), ""), before.replace(service(0) + TRANSIT, "")):
        parse_cluster(text, file="it")
        assert found(text, before) is None
    assert found(before.replace("10.11.12.102:80", "10.99.0.1:80"), before) is None


def test_a_sorry_server_is_not_put_into_a_transit() -> None:
    before = SMALL + service(0) + TRANSIT + service(1)
    text = before.replace("10.11.12.201:80", "10.99.0.1:80")
    with pytest.raises(ConfigError):
        parse_cluster(text, file="it")
    assert found(text, before) is None


@pytest.mark.parametrize("first", ["ops = true", "unavailable = 'drop'"])
@pytest.mark.parametrize("port", [8053, 53])
def test_answers_of_datagrams_are_told_apart_from_those_of_services_that_stay(
    first: str, port: int
) -> None:
    one, two = (
        f"""
[[service]]
name = "dns{n}"
listen = ["vip:public udp/{n}"]
{keys}
  [[service.server]]
  name = "one"
  address = "10.11.12.9:{at}"
"""
        for n, keys, at in ((50, first, 53), (51, "ops = true", port))
    )
    before = BEFORE + one

    made = found(before + two, before)

    if port == 53:
        assert made is None
        with pytest.raises(ConfigError):
            parse_cluster(before + two, file="it")
    else:
        assert made == parse_cluster(before + two, file="it")


def test_servers_of_datagrams_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    two = (
        BEFORE
        + """
[[service]]
name = "dns"
listen = ["vip:public udp/53"]
ops = true
  [[service.server]]
  name = "one"
  address = "10.11.12.8"
  [[service.server]]
  name = "two"
  address = "10.11.12.9"
"""
    )
    monkeypatch.setattr(amendment, "OPS_SERVERS_MAX", 2)
    assert found(two, BEFORE) is not None
    monkeypatch.setattr(amendment, "OPS_SERVERS_MAX", 1)
    assert found(two, BEFORE) is None


def test_every_key_is_read_in_what_changed() -> None:
    for old, new in (
        ("/health?full=1", "/health?full=0"),
        ("10.11.12.250", "10.11.12.251"),
        ("hex:00", "hex:01"),
        ("priority = 2", "priority = 3"),
        ('"30%"', '"40%"'),
    ):
        text = changed(EVERYTHING, old, new)
        assert found(text, EVERYTHING) == parse_cluster(text, file="it") != KNOWN


def test_targets_of_all_services_together_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    one_more = BEFORE + service(6)
    for most in (14, 13):
        monkeypatch.setattr(amendment, "TARGETS_MAX", most)
        assert (found(one_more) is not None) is (most == 14)


def test_limits_of_all_services_together_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    one_more = BEFORE + service(6)
    assert found(one_more) is not None
    for limits, key, most in (
        (CLUSTER_LIMITS, ("service",), 6),
        (CLUSTER_TOTALS, ("service", "*", "server"), 13),
        (CLUSTER_TOTALS, ("service", "*", "listen"), 6),
    ):
        with monkeypatch.context() as patched:
            patched.setitem(limits, key, most)
            with pytest.raises(ConfigError):
                parse_cluster(one_more, file="it")
            assert found(one_more) is None


def test_more_sources_are_counted_where_all_are() -> None:
    text = BEFORE + changed(service(6), "listen", 'from = ["public"]\nlisten')
    parse_cluster(text, file="it")
    assert found(text) is None


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_amended_text_means_what_the_whole_says(seed: int) -> None:
    rng = random.Random(seed)
    lines = BEFORE.splitlines(keepends=True)
    for _ in range(rng.randint(1, 3)):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[other])
            case 2:
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines[at] = lines[at].replace("1", str(rng.randint(0, 9)))
            case 4:
                lines.insert(at, rng.choice([TRANSIT, service(rng.randint(0, 9)), '"""\n', "x\n"]))
            case _:
                lines[at] = lines[at].replace("\n", rng.choice(["", " # x\n", "\r\n"]))
    text = "".join(lines)
    result = amended(text, known_text=BEFORE, known=KNOWN)
    try:
        whole = parse_cluster(text, file="it")
    except ConfigError:
        assert result is None
    else:
        assert result is None or result == whole
