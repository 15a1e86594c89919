"""HTTP/1.1 over asyncio transports, parsed by httptools (llhttp); strict where requests could be smuggled."""

from cloudtolocalllm.runtime.http1.client import Connection, Exchange, Pool, ResponseHandler, fetch
from cloudtolocalllm.runtime.http1.errors import (
    BadRequestError,
    BadResponseError,
    ConnectError,
    HttpError,
    LocalError,
)
from cloudtolocalllm.runtime.http1.messages import Body, BodyKind, Headers, HttpLimits, Request, Response
from cloudtolocalllm.runtime.http1.server import App, Gate, HttpServer, RequestHandler, Responder, switching_protocols

__all__ = [
    "App",
    "BadRequestError",
    "BadResponseError",
    "Body",
    "BodyKind",
    "ConnectError",
    "Connection",
    "Exchange",
    "Gate",
    "Headers",
    "HttpError",
    "HttpLimits",
    "HttpServer",
    "LocalError",
    "Pool",
    "Request",
    "RequestHandler",
    "Responder",
    "Response",
    "ResponseHandler",
    "fetch",
    "switching_protocols",
]
