"""Mint and verify: assertions for proxies, API keys, bridge credentials, sessions."""
