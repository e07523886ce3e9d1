"""Adapters to the kernel: one a file, behind the small Protocols of `ports`."""
