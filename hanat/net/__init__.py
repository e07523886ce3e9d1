"""Bytes between the nodes: beacons on every path, death notices, and the authenticated stream."""
