"""What is wrong with a request."""

from __future__ import annotations


class BadRequestError(Exception):
    """What the client sent cannot be understood; `status` is the HTTP status to answer."""

    def __init__(self, sentence: str, *, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status
