"""The checker: a process beside the daemon that probes servers.

`probers` makes one probe of any kind; `probe_service` probes when `core.probing.Probes` says so.
The daemon's end is `daemon.checker_link`. The daemon itself never makes a probe.
"""
