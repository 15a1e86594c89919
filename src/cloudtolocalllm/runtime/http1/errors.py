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
    """The peer's response is malformed or was cut short.

    `retryable` is true when a kept-alive connection was closed before any byte of the response came: the peer may
    have closed it as idle before it saw the request (RFC 9112 §9.3.1).
    """

    def __init__(self, detail: str, *, retryable: bool = False) -> None:
        super().__init__(detail)
        self.retryable = retryable


class ConnectError(HttpError):
    """No connection could be made within the deadline."""


class LocalError(HttpError):
    """Our side broke the rules of the interface: a body that is longer or shorter than announced, a second head."""
