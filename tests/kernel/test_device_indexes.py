"""Indexes of devices, asked by name in a real kernel."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from hanat.kernel.device_indexes import DeviceIndexes
from tests.kernel.namespaces import run, until

pytestmark = pytest.mark.kernel


def test_device_that_is_made_anew_or_renamed_is_found_again(inside: str) -> None:
    run("ip link add one type veth peer name far", inside)
    first = socket.if_nametoindex("one")
    with closing(DeviceIndexes()) as indexes:
        assert indexes.of(["one", "absent"]) == (first,)

        run("ip link del one", inside)
        assert indexes.of(["one"]) == ()
        run("ip link add one type veth peer name far", inside)
        second = socket.if_nametoindex("one")
        assert second != first
        until(lambda: indexes.of(["one"]) == (second,), "the devices to be listed again")

        run("ip link set one name other", inside)
        assert indexes.of(["one"]) == ()
