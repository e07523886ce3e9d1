"""Texts read in this process and in one of its own: nobody can tell which."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.lab.node_files import CLUSTER_TOML
from hanat.config import parse_cluster
from hanat.core.configuration import Configuration
from hanat.daemon import configuration_reader
from hanat.daemon.gate_change import GateChange
from hanat.daemon.ruleset_installer import RulesetInstaller
from hanat.errors import ConfigError
from tests.core.examples import CONVERSATION, DEVICES, EDGE
from tests.fakes.gate import FakeGate
from tests.fakes.kernel import FakeAddresses, FakeFirewall, FakeKernel

LARGE = CLUSTER_TOML + "\n".join(
    f"""\
[[service]]
name = "s{number}"
listen = ["vip:public tcp/{20_000 + number}"]
  [[service.server]]
  name = "one"
  address = "10.11.12.101:8080"
"""
    for number in range(100)
)


def test_text_small_or_large_gives_its_configuration_and_scripts() -> None:
    for text in (CLUSTER_TOML, LARGE):
        configuration, scripts = configuration_reader.read(
            text, file="it", devices=DEVICES, conversation=CONVERSATION
        )
        assert configuration == parse_cluster(text, file="it")
        assert scripts == configuration_reader.render(configuration, DEVICES, CONVERSATION)


def test_large_text_is_not_read_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read_here: list[str] = []

    def parse(text: str, *, file: str) -> Configuration:
        read_here.append(file)
        return parse_cluster(text, file=file)

    monkeypatch.setattr("hanat.daemon.configuration_reader.parse_cluster", parse)
    for text, file in ((LARGE, "large"), (CLUSTER_TOML, "small")):
        configuration_reader.read(text, file=file, devices=DEVICES, conversation=CONVERSATION)
    assert read_here == ["small"]


@pytest.mark.parametrize("length", [0, configuration_reader.SMALL_BYTES_MAX])
def test_wrong_text_is_refused_with_all_its_problems(length: int) -> None:
    wrong = CLUSTER_TOML.replace("vip:public", "vip:nowhere") + "#" * length
    with pytest.raises(ConfigError) as alone:
        parse_cluster(wrong, file="it")
    with pytest.raises(ConfigError) as found:
        configuration_reader.read(wrong, file="it", devices=DEVICES, conversation=CONVERSATION)
    assert found.value.problems == alone.value.problems


def test_large_text_is_read_here_if_there_is_no_process_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for command in (["/nonexistent"], ["/bin/false"]):
        monkeypatch.setattr(
            configuration_reader, "python_command", lambda _, command=command: command
        )
        configuration, _ = configuration_reader.read(
            LARGE, file="it", devices=DEVICES, conversation=CONVERSATION
        )
        assert configuration == parse_cluster(LARGE, file="it")


def test_configuration_for_devices_that_are_not_here_has_no_scripts() -> None:
    devices = {"public": "eth0"}
    found = configuration_reader.read(
        CLUSTER_TOML, file="it", devices=devices, conversation=CONVERSATION
    )
    assert found[1] is None


def test_little_that_changed_in_a_large_text_is_all_that_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a node, which knows what it has read before."""
    kernel = FakeKernel(DEVICES.values(), now=lambda: 0.0)
    rulesets = RulesetInstaller(
        DEVICES,
        conversation=CONVERSATION,
        gate=GateChange(FakeGate(kernel), FakeAddresses(kernel), DEVICES.values()),
        firewall=FakeFirewall(kernel),
        background=at_once,
        known=("", EDGE),
    )
    found: list[Configuration | ConfigError] = []
    rulesets.read(LARGE, file="it", done=found.append)

    started: list[str] = []

    def command(module: str) -> list[str]:
        started.append(module)
        return ["/bin/false"]

    monkeypatch.setattr(configuration_reader, "python_command", command)
    changed = LARGE + "  weight = 7\n"
    rulesets.read(changed, file="it", done=found.append)
    assert started == []
    assert found[1] == parse_cluster(changed, file="it")
    wrong = LARGE + "  weight = -7\n"
    rulesets.read(wrong, file="it", done=found.append)
    with pytest.raises(ConfigError) as alone:
        parse_cluster(wrong, file="it")
    assert isinstance(found[2], ConfigError)
    assert found[2].problems == alone.value.problems


def test_scripts_of_what_was_nearly_known_are_those_of_the_whole() -> None:
    configuration, scripts = configuration_reader.read(
        LARGE, file="it", devices=DEVICES, conversation=CONVERSATION
    )
    text = LARGE + "  weight = 0\n"
    known = configuration_reader.Known(LARGE, configuration, scripts)
    found = configuration_reader.read(
        text, file="it", devices=DEVICES, conversation=CONVERSATION, known=known
    )
    assert found[0] == parse_cluster(text, file="it")
    assert found[1] == configuration_reader.render(found[0], DEVICES, CONVERSATION)


def at_once(work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
    try:
        work()
    except ConfigError as error:
        done(error)
    else:
        done(None)
