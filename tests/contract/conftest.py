"""Two subjects: the fakes anywhere, the real adapters in a namespace of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from chaos.netns import entered
from tests.contract.subjects import DEVICES, Adapters, FakeOutside, KernelOutside, Outside
from tests.kernel.namespaces import cable, namespaces


@dataclass(frozen=True)
class Subject:
    """The adapters of one kernel and its outside."""

    adapters: Adapters
    outside: Outside


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.kernel)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "fake":
        outside = FakeOutside()
        yield Subject(outside.adapters(), outside)
        return
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "conntrack"))):
        pytest.skip("needs root, ip and conntrack: it makes network namespaces")
    with namespaces("here", "far") as made, entered(made["here"]):
        for device in DEVICES:
            cable((made["here"], device), (made["far"], f"far-{device}"))
        real = KernelOutside(made["here"], made["far"])
        try:
            yield Subject(real.adapters(), real)
        finally:
            real.close()
