"""What the processes of a node load, which is most of their memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

TESTS_ONLY = {"scapy", "pyroute2", "unittest", "click"}
UNUSED = {
    "hanat.supervisor.supervisor": {
        *TESTS_ONLY, "argparse", "asyncio", "hashlib", "hanat.core.configuration", "hanat.config",
    },
    "hanat.worker.__main__": {*TESTS_ONLY, "aiohttp", "pydantic", "cryptography", "hanat.config"},
    "hanat.checker.__main__": {*TESTS_ONLY, "pydantic", "cryptography", "hanat.config"},
    "hanat.daemon.main": TESTS_ONLY,
}  # fmt: skip


@pytest.mark.parametrize("module", UNUSED)
def test_process_does_not_load_what_it_does_not_use(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert UNUSED[module].isdisjoint(done.stdout.split())
