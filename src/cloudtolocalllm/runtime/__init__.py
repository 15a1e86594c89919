"""Asyncio plumbing that knows no domain."""
