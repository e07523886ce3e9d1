"""Who a node is to others."""

from __future__ import annotations

from hanat.core.identity import Identity


def test_the_key_is_in_no_text_about_a_node() -> None:
    key = bytes(range(32))
    identity = Identity(key, "edge1", 0.12, 1)

    for text in (repr(identity), str(identity), f"{identity}", repr([identity])):
        assert "edge1" in text
        assert "\\x01" not in text
        assert key.hex() not in text
    assert identity == Identity(key, "edge1", 0.12, 1)
    assert identity != Identity(bytes(32), "edge1", 0.12, 1)
