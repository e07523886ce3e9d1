"""Texts read in this process and in one of its own: nobody can tell which."""

from __future__ import annotations

import pytest

from chaos.configs import CLUSTER_TOML
from hanat.config import parse_cluster
from hanat.core.configuration import Configuration
from hanat.daemon import reading
from hanat.errors import ConfigError
from tests.core.examples import CONVERSATION, DEVICES

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
        configuration, scripts = reading.read(
            text, file="it", devices=DEVICES, conversation=CONVERSATION
        )
        assert configuration == parse_cluster(text, file="it")
        assert scripts == reading.render(configuration, DEVICES, CONVERSATION)


def test_large_text_is_not_read_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read_here: list[str] = []

    def parse(text: str, *, file: str) -> Configuration:
        read_here.append(file)
        return parse_cluster(text, file=file)

    monkeypatch.setattr("hanat.daemon.reading.parse_cluster", parse)
    for text, file in ((LARGE, "large"), (CLUSTER_TOML, "small")):
        reading.read(text, file=file, devices=DEVICES, conversation=CONVERSATION)
    assert read_here == ["small"]


@pytest.mark.parametrize("length", [0, reading.SMALL_BYTES_MAX])
def test_wrong_text_is_refused_with_all_its_problems(length: int) -> None:
    wrong = CLUSTER_TOML.replace("vip:public", "vip:nowhere") + "#" * length
    with pytest.raises(ConfigError) as alone:
        parse_cluster(wrong, file="it")
    with pytest.raises(ConfigError) as found:
        reading.read(wrong, file="it", devices=DEVICES, conversation=CONVERSATION)
    assert found.value.problems == alone.value.problems


def test_large_text_is_read_here_if_there_is_no_process_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for command in (["/nonexistent"], ["/bin/false"]):
        monkeypatch.setattr(reading, "python_command", lambda _, command=command: command)
        configuration, _ = reading.read(
            LARGE, file="it", devices=DEVICES, conversation=CONVERSATION
        )
        assert configuration == parse_cluster(LARGE, file="it")


def test_configuration_for_devices_that_are_not_here_has_no_scripts() -> None:
    devices = {"public": "eth0"}
    found = reading.read(CLUSTER_TOML, file="it", devices=devices, conversation=CONVERSATION)
    assert found[1] is None
