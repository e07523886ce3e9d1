"""Read a configuration and render it, in a process of its own if it is large.

100 services of 20 servers take 70 ms to read and 12 ms to render, all of it Python, and
the lease of profile ``fast`` lasts 40 ms. A thread is not enough: each time the loop
comes back from a system call it waits for the interpreter, and a tick of 20 calls took
31 ms instead of 0.1 beside a thread that reads. Shorter switches help only as long as
the thread gets a processor, and it must not have the priority of the loop.

The process is started for one text and ends: it takes half a second and, unlike one
that waits, no memory. Small texts are read at once, and so is what little a large one
has that the text read before it had not: one weight of 10,000 takes 15 ms. Meanwhile
the thread has the interpreter, and must not be kept from the processor by others.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from hanat.config import amended, parse_cluster
from hanat.core.configuration import Configuration
from hanat.core.control_traffic import ControlTraffic
from hanat.core.gate_rules import render_gate
from hanat.core.rights import TIMEOUTS, Enforcement
from hanat.core.ruleset import Known as KnownScript
from hanat.core.ruleset import render_ruleset
from hanat.daemon.realtime import hurried, uncollected
from hanat.errors import ConfigError
from hanat.supervisor.supervisor import python_command

log = logging.getLogger(__name__)

SMALL_BYTES_MAX = 4096  # 2 ms of reading
READING_S_MAX = 60.0  # 20,000 servers take 6 s on a busy machine; the loop does not wait for it

Scripts = tuple[str, str]
"""For the gate and for the firewall."""

Read = tuple[Configuration, Scripts | None]
"""A configuration and its scripts, None if this node lacks a device for it."""


@dataclass(frozen=True, slots=True)
class Known:
    """What was read before, for the same devices and peers."""

    text: str
    configuration: Configuration
    scripts: Scripts | None


def render(
    configuration: Configuration,
    devices: Mapping[str, str],
    conversation: ControlTraffic,
    known: Known | None = None,
    by: Enforcement = TIMEOUTS,
) -> Scripts | None:
    """Return what to install for a configuration."""
    if set(configuration.interfaces) - set(devices):
        return None
    gate = render_gate(configuration, devices, by)
    before = None
    if known is not None and known.scripts is not None:
        before = KnownScript(known.configuration, known.scripts[1])
    return gate, render_ruleset(configuration, devices, conversation, known=before)


def read(
    text: str,
    *,
    file: str,
    devices: Mapping[str, str],
    conversation: ControlTraffic,
    known: Known | None = None,
    by: Enforcement = TIMEOUTS,
) -> Read:
    """Return what a text says.

    Args:
        text: Of ``cluster.toml``.
        file: Its name in messages.
        devices: Logical name to kernel device.
        conversation: How this node and its peers reach each other.
        known: Spares what the text has in common with that.
        by: How the gate's rules know the rights.

    Raises:
        ConfigError: With every problem of the text.
    """
    if known is not None and known.scripts is not None:
        with hurried():
            configuration = amended(text, known_text=known.text, known=known.configuration)
            if configuration is not None:
                return configuration, render(configuration, devices, conversation, known, by)
    if len(text) <= SMALL_BYTES_MAX:
        return _read(text, file, devices, conversation, by)
    try:
        found = subprocess.run(
            python_command("hanat.daemon.configuration_reader"),
            input=pickle.dumps((text, file, dict(devices), conversation, by)),
            stdout=subprocess.PIPE,
            timeout=READING_S_MAX,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("reader found=%r action=read_in_thread", str(error))
        return _read(text, file, devices, conversation, by)
    with hurried(), uncollected():
        answer: Read | ConfigError = pickle.loads(found.stdout)  # noqa: S301 - of our own process
    if isinstance(answer, ConfigError):
        raise answer
    return answer


def _read(
    text: str,
    file: str,
    devices: Mapping[str, str],
    conversation: ControlTraffic,
    by: Enforcement,
) -> Read:
    configuration = parse_cluster(text, file=file)
    return configuration, render(configuration, devices, conversation, by=by)


def main() -> None:
    """Read the one text that comes on standard input."""
    try:
        answer: Read | ConfigError = _read(*pickle.load(sys.stdin.buffer))  # noqa: S301 - of our parent
    except ConfigError as error:
        answer = error
    pickle.dump(answer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
