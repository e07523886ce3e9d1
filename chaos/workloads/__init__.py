"""Clients that generate operations and record each with its outcome."""
