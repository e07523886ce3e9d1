"""What the processes of a node load, which is most of their memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hanat.start

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


@pytest.mark.parametrize("module", hanat.start.WITHOUT_TLS)
def test_process_that_speaks_no_tls_does_not_load_it(module: str, tmp_path: Path) -> None:
    package = tmp_path / "hanat"
    package.mkdir()
    shutil.copy(hanat.start.__file__, package)
    (package / "__init__.py").write_text("import asyncio\n__version__ = '0'\n")
    for name in ("shown", module.removeprefix("hanat.")):
        (package / f"{name}.py").write_text("import asyncio, sys\nprint('_ssl' in sys.modules)\n")

    found = [
        subprocess.run(
            [sys.executable, "-I", package / "start.py", "-m", name],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout.split()[-1]
        for name in (module, "hanat.shown")
    ]  # fmt: skip

    assert found == ["False", "True"]


def test_daemon_does_not_load_certificates_of_authorities() -> None:
    code = (
        "from hanat.daemon import __main__\n"
        "with __main__._no_authorities():\n"
        "    import hanat.daemon.main\n"
        "import aiohttp.connector\n"
        "print(aiohttp.connector._SSL_CONTEXT_VERIFIED.cert_store_stats()['x509'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout == "0\n"
