"""Random values that more than one suite needs."""

from __future__ import annotations

from hypothesis import strategies as st

from hanat.core.flows import Flow, Tuple5

_BYTE = st.integers(0, 255)
_PORT = st.integers(0, 65535)
_WORD = st.integers(0, 2**32 - 1)


def tuples(version: int) -> st.SearchStrategy[Tuple5]:
    """Return one direction of a flow of one IP version."""
    address = st.ip_addresses(v=4) if version == 4 else st.ip_addresses(v=6)
    return st.builds(Tuple5, address, address, _PORT, _PORT)


def flows() -> st.SearchStrategy[Flow]:
    """Return flows of either version with any values that fit a record."""
    return st.sampled_from((4, 6)).flatmap(
        lambda version: st.builds(
            Flow,
            protocol=_BYTE,
            original=tuples(version),
            reply=tuples(version),
            status=_WORD,
            timeout_s=_WORD,
            mark=_WORD,
            zone=_PORT,
            ident=_WORD,
            tcp_state=_BYTE,
            tcp_scale=st.tuples(_BYTE, _BYTE),
            tcp_flags=st.tuples(_BYTE, _BYTE),
        )
    )
