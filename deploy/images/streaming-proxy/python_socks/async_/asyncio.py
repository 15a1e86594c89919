"""See `python_socks`."""


class Proxy:
    """Cannot be used."""
