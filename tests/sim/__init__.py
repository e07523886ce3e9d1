"""Whole nodes in virtual time: the real core and the real Raft library, a simulated world."""
