"""What we rely on, and protect ourselves from, in the Raft library."""

from __future__ import annotations

import socket

import pytest

from hanat.errors import StartupError
from hanat.raft import library


def test_standard_library_survives_the_import_of_the_raft_library() -> None:
    packed = socket.inet_pton(socket.AF_INET6, "2001:db8::10")
    assert socket.inet_ntop(socket.AF_INET6, packed) == "2001:db8::10"


def test_another_version_of_the_raft_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "VERSION", "0.3.18")
    with pytest.raises(StartupError, match=r"install pysyncobj==0\.3\.17"):
        library.prepare(clock=lambda: 0.0, uniform=lambda: 0.0)
