"""The checker: a process beside the daemon that probes servers, and the daemon's end of it.

`probers` makes one probe of any kind; `service` is the process, which probes when
`core.probing.Probes` says so; `client` is the daemon's end. No probe is ever made by the daemon.
"""
