"""Views of nodes: what is counted at each change is what a count of all would find."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hanat.core.probing import Operational
from hanat.core.views import Contrast, View, Views

TARGETS, NODES = ("a", "b", "c"), (2, 3)
VIEWS = st.one_of(
    st.sampled_from((View(Operational.UP, ok=True), View(Operational.DOWN, ok=False))),
    st.builds(View, st.sampled_from(Operational), st.booleans()),
)
STEPS = st.one_of(
    st.tuples(st.just("see"), st.sampled_from(TARGETS), VIEWS),
    st.tuples(st.just("hear"), st.sampled_from(NODES), st.sampled_from(TARGETS), VIEWS),
    st.tuples(st.just("forget"), st.sampled_from(NODES)),
    st.tuples(st.just("forget_own")),
    st.tuples(st.just("eligible"), st.sets(st.sampled_from(NODES))),
    st.tuples(st.just("remove"), st.sampled_from(TARGETS)),
)


class Table:
    """All views, and nothing that was counted."""

    def __init__(self) -> None:
        self.own: dict[str, View] = {}
        self.others: dict[int, dict[str, View]] = {}
        self.able: set[int] = set()

    def see(self, target: str, view: View) -> None:
        self.own[target] = view

    def hear(self, node_id: int, target: str, view: View) -> None:
        self.others.setdefault(node_id, {})[target] = view

    def forget(self, node_id: int) -> None:
        self.others.pop(node_id, None)

    def forget_own(self) -> None:
        self.own.clear()

    def eligible(self, nodes: set[int]) -> None:
        self.able = nodes

    def remove(self, target: str) -> None:
        for views in (self.own, *self.others.values()):
            views.pop(target, None)

    def contrasts(self) -> dict[int, Contrast]:
        found = {}
        for node_id in self.able & set(self.others):
            views = self.others[node_id]
            sure = [t for t in views if views[t] == (Operational.UP, True)]
            own = [self.own[t] for t in sure if t in self.own]
            down = sum(view.state is Operational.DOWN for view in own)
            failing = sum(view.state is Operational.DOWN or not view.ok for view in own)
            found[node_id] = Contrast(failing, down)
        return found


@given(st.lists(STEPS, min_size=15, max_size=50))
def test_counters_equal_a_recount(steps: list[tuple[Any, ...]]) -> None:
    views, table = Views(), Table()
    views.configure(count=len(TARGETS), gone=())
    for either in (views, table):
        either.eligible(set(NODES))
        for node_id in NODES:
            either.hear(node_id, "a", View(Operational.UP, ok=True))
    for name, *given_values in steps:
        getattr(table, name)(*given_values)
        if name == "remove":
            views.configure(count=len(TARGETS), gone=given_values)
        else:
            getattr(views, name)(*given_values)
        found = table.contrasts()
        assert views.contrasts() == found
        assert views.is_in_doubt() is any(c.failing > 1 for c in found.values())
        most = max((c.down for c in found.values()), default=0)
        witness = min((n for n in found if found[n].down == most), default=0)
        assert views.witness() == ((witness, most) if most > 1 else None)
        for target in TARGETS:
            rows = {n: v[target] for n, v in sorted(table.others.items()) if target in v}
            assert list(views.of(target).items()) == list(rows.items())
