"""See `python_socks`."""
