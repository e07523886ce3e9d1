"""Datagrams between the nodes."""
