"""High-availability NAT router and layer-4 load balancer for Linux.

Three router nodes; the elected one holds the public and the private floating
address, publishes virtual services and translates to the real servers behind
it. Configuration and connection state are replicated through Raft, so whoever
takes over has every committed connection already in its kernel.
"""

__version__ = "0.2.0"
