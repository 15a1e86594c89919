"""Errors of HTTP/1.1 connections."""


class HttpError(Exception):
    """Base of the errors of this package."""


class BadRequestError(HttpError):
    """The peer's request cannot be served; the connection is answered with `status` and closed."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class BadResponseError(HttpError):
    """The peer's response is malformed or was cut short."""


class ConnectError(HttpError):
    """No connection could be made within the deadline."""
