"""What ``hanat fence`` must know of a node's two files, and nothing more.

A machine is to be silenced also if its files are wrong in places that do not matter for that. So
only the needed keys are read, by the standard library, and nothing of a node is loaded. The rest
of both files is `hanat.config`'s.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from hanat.core.configuration import Interface
from hanat.errors import ConfigError, Problem

TEXT_BYTES_MAX = 2 << 20  # never read a device by mistake; see `config.document`


@dataclass(frozen=True, slots=True)
class FenceTarget:
    """The node that is to be silent.

    Attributes:
        node: Its name, for people.
        data_dir: Where its journal is, whose lock says whether it runs.
        devices: Kernel name of each logical interface.
        cluster_file: Names the floating addresses.
    """

    node: str
    data_dir: Path
    devices: Mapping[str, str]
    cluster_file: Path


def read_target(node_file: Path) -> FenceTarget:
    """Return what a node's own file says; relative paths are relative to it.

    Raises:
        ConfigError: It cannot be read, or one of those keys is missing or wrong.
    """
    document = _read(node_file)
    problems = [
        Problem(str(node_file), key, f"is {_found(document, key)}; it must be a text")
        for key in ("node", "data_dir", "cluster_file")
        if not isinstance(document.get(key), str)
    ]
    devices = document.get("interfaces")
    if not isinstance(devices, dict) or not all(isinstance(d, str) for d in devices.values()):
        found = f"is {_found(document, 'interfaces')}; it must map names to kernel devices"
        problems.append(Problem(str(node_file), "interfaces", found))
    if problems:
        raise ConfigError(tuple(problems))
    folder = node_file.absolute().parent
    return FenceTarget(
        document["node"],
        folder / document["data_dir"],
        document["interfaces"],
        folder / document["cluster_file"],
    )


def read_addresses(target: FenceTarget) -> list[tuple[str, Interface]]:
    """Return kernel device and address of each floating address of the cluster file.

    Raises:
        ConfigError: It cannot be read, or an address is none.
    """
    file = target.cluster_file
    vips = _read(file).get("vip", [])
    try:
        return list(_placed(target, vips))
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError((Problem(str(file), "vip", str(error)),)) from error


def _placed(target: FenceTarget, vips: list[dict[str, Any]]) -> Iterator[tuple[str, Interface]]:
    for vip in vips:
        device = target.devices.get(vip.get("interface", ""))
        if device is not None:  # else it can be on none of this node's
            for address in vip.get("address", ()):
                yield device, ip_interface(address)


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            text = opened.read(TEXT_BYTES_MAX + 1).decode()
        if len(text) > TEXT_BYTES_MAX:
            raise ConfigError((Problem(str(file), "", "is too long for a configuration"),))
        return tomllib.loads(text)
    except OSError as error:
        problem = Problem(str(file), "", f"cannot be read: {error.strerror}")
    except ValueError as error:
        problem = Problem(str(file), "", f"is not TOML: {error}")
    raise ConfigError((problem,))


def _found(document: Mapping[str, Any], key: str) -> str:
    return f"{document[key]!r}" if key in document else "missing"
