"""A kernel in memory, held to the real one by tests/contract."""
