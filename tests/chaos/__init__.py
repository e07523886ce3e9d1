"""Tests of the lab, its clients, observers and checkers."""
