"""Checkers: pure functions of a history, each with a verdict and its evidence."""
