"""Where the server listens, and what it says when it cannot."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from hanat.api.server import serve
from hanat.config.settings import TcpListen, UnixListen
from hanat.errors import StartupError
from tests.api.conftest import Served
from tests.api.helpers import FakeBackend, ask, unix_in


async def test_the_unix_socket_is_for_owner_and_group(served: Served) -> None:
    mode = served.unix.path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660


async def test_close_removes_the_unix_socket_and_frees_the_port(tmp_path: Path) -> None:
    api = await serve([unix_in(tmp_path), TcpListen("127.0.0.1", 0)], FakeBackend())
    _, tcp = api.listens
    await api.close()
    assert list(tmp_path.iterdir()) == []
    again = await serve([tcp], FakeBackend())
    await again.close()


async def test_close_leaves_a_socket_that_somebody_else_put_there(tmp_path: Path) -> None:
    api = await serve([unix_in(tmp_path)], FakeBackend())
    path = tmp_path / "api.sock"
    path.rename(tmp_path / "old.sock")  # keeps the inode number from being used again
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        await api.close()
        assert path.is_socket()


async def test_a_socket_left_by_a_crash_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(tmp_path / "api.sock"))
        crashed.listen()
    api = await serve([unix_in(tmp_path)], FakeBackend())
    assert (await ask(unix_in(tmp_path), "/livez")).status == 200
    await api.close()


async def test_a_socket_that_answers_is_another_hanat(served: Served) -> None:
    with pytest.raises(StartupError) as caught:
        await serve([served.unix], FakeBackend())
    assert caught.value.found == "another hanat runs here and answers on it"
    assert str(served.unix.path) in caught.value.tried
    assert (await ask(served.unix, "/livez")).status == 200


async def test_a_socket_whose_queue_is_full_is_another_hanat(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))
        with pytest.raises(StartupError, match="another hanat runs here"):
            await serve([unix_in(tmp_path)], FakeBackend())


async def test_a_file_in_place_of_the_socket_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "api.sock").write_text("precious")
    with pytest.raises(StartupError, match="not a socket has this name; move it away"):
        await serve([unix_in(tmp_path)], FakeBackend())
    assert (tmp_path / "api.sock").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing/api.sock", "no such file or directory; create the directory or change"),
        ("file/api.sock", "not a directory; change api.listen"),
        ("x" * 100 + "/" + "y" * 100, "AF_UNIX path too long; change api.listen"),
    ],
)
async def test_an_impossible_unix_path_is_explained(
    tmp_path: Path, name: str, sentence: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / ("x" * 100)).mkdir()
    with pytest.raises(StartupError, match=sentence) as caught:
        await serve([UnixListen(tmp_path / name)], FakeBackend())
    assert str(caught.value).startswith(f"cannot listen on unix:{tmp_path}")


async def test_a_port_that_is_taken_is_explained_and_nothing_is_kept(
    served: Served, tmp_path: Path
) -> None:
    unix = UnixListen(tmp_path / "second.sock")
    with pytest.raises(StartupError) as caught:
        await serve([unix, served.tcp], FakeBackend())
    assert caught.value.tried == f"cannot listen on 127.0.0.1:{served.tcp.port}"
    assert caught.value.found == "address already in use"
    assert "ss -ltnp" in caught.value.to_do
    assert not unix.path.exists()


async def test_an_address_of_another_machine_is_explained() -> None:
    with pytest.raises(StartupError, match="choose an address of this machine"):
        await serve([TcpListen("192.0.2.1", 0)], FakeBackend())


async def test_a_host_that_is_no_address_is_explained() -> None:
    with pytest.raises(StartupError, match=r"256\.1\.1\.1 is not an address"):
        await serve([TcpListen("256.1.1.1", 0)], FakeBackend())


async def test_ipv6_is_served_where_the_machine_has_it() -> None:
    if not Path("/proc/net/if_inet6").exists():
        return  # nothing to serve on
    api = await serve([TcpListen("::1", 0)], FakeBackend())
    assert api.listens[0] != TcpListen("::1", 0)
    await api.close()
