"""Drives a tunnel session over WebSockets: the accepting side and the dialling side."""

from cloudtolocalllm.link.client import DialTarget, RefusedError, TunnelClient
from cloudtolocalllm.link.server import TunnelServer
from cloudtolocalllm.link.tunnel import Acceptor, Stream, StreamHandler, Tunnel

__all__ = [
    "Acceptor",
    "DialTarget",
    "RefusedError",
    "Stream",
    "StreamHandler",
    "Tunnel",
    "TunnelClient",
    "TunnelServer",
]
