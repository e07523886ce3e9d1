"""Datagrams between the nodes: beacons on every path, and the release of a dead one."""
