"""Drives a tunnel session over WebSockets: the accepting side and the dialling side."""

from cloudtolocalllm.link.client import DialTarget, RefusedError, TunnelClient
from cloudtolocalllm.link.server import TunnelServer
from cloudtolocalllm.link.stream import Acceptor, Stream, StreamHandler
from cloudtolocalllm.link.tunnel import Tunnel

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
