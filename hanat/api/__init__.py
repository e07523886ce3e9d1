"""The HTTP interface: status, probes, metrics, switchover."""
