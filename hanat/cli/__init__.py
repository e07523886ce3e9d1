"""The command line: parse, call, print; no decisions.

One file a group of commands, imported when one of its commands is called:
``hanat status`` must answer on a machine in trouble and needs neither the
configuration models nor the daemon.
"""

from hanat.cli.entry import main

__all__ = ["main"]
