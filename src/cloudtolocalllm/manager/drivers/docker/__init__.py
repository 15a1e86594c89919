"""Proxies as containers of a Docker engine."""
