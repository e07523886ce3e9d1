"""What nodes tell each other of servers comes out as it went in, or not at all."""

from __future__ import annotations

import pytest

from hanat.core.probing import Operational
from hanat.core.view_exchange import Slice
from hanat.core.views import View
from hanat.daemon.server_messages import views_of, views_to_bytes

DOWN = View(Operational.DOWN, ok=False)


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("more", [False, True])
def test_views_come_out_as_they_went_in(anew: bool, more: bool) -> None:  # noqa: FBT001
    told = Slice((("t1", DOWN), ("t2", View(Operational.UP, ok=False))), anew, more)
    assert views_of(views_to_bytes(told)) == told


def test_older_member_of_the_cluster_is_understood() -> None:
    data = b'{"anew":true,"views":[["t1","down",false]]}'
    assert views_of(data) == Slice((("t1", DOWN),), anew=True, more=False)


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b'{"views":[]}', b'{"anew":1,"views":[1]}'])
def test_something_else_is_none(data: bytes) -> None:
    assert views_of(data) is None
