"""Benchmarks: the platform against the same engine directly, and against the tunnels that people use today."""
