"""Ways to run proxies."""
