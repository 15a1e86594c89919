"""Directives for the fields of every answer, and the maps behind their values."""

from cloudtolocalllm.edge import headers
from cloudtolocalllm.edge.nginx.text import block
from cloudtolocalllm.runtime.site import ASK, FOREVER, HASHED


def _fields(*, tls: bool) -> list[tuple[str, str]]:
    fields = [(name.decode(), value.decode()) for name, value in headers.SECURITY if name != b"server"]
    return [*fields, ("strict-transport-security", "max-age=31536000; includeSubDomains")] if tls else fields


def security(*, tls: bool, upgraded: bool) -> list[str]:
    """Return the directives that add the fields of every answer.

    Args:
        tls: Whether browsers shall come back by TLS only.
        upgraded: For locations that may answer 101, which bears none of them: by variables, which are empty then.
    """
    if upgraded:
        return [f"add_header {name} $c2l_{name.replace('-', '_')} always;" for name, _ in _fields(tls=tls)]
    return [f'add_header {name} "{value}" always;' for name, value in _fields(tls=tls)]


def security_names() -> tuple[str, ...]:
    """Return the names of all that `security` may add, for what an upstream says of them."""
    return tuple(name for name, _ in _fields(tls=True))


def security_maps(*, tls: bool) -> list[str]:
    """Return the maps behind the variables of `security`."""
    return [
        block(f"map $status $c2l_{name.replace('-', '_')}", ["volatile;", '101 "";', f'default "{value}";'])
        for name, value in _fields(tls=tls)
    ]


def page_maps() -> list[str]:
    """Return the maps that tell how long a file may be kept, and which paths are views of the page."""
    return [
        # A path without a dot in its last segment is a view of the page.
        block("map $c2l_path $c2l_page", ["volatile;", 'default "/index.html";', '"~[.][^/]*$" "";']),
        block(
            "map $c2l_path $c2l_cache",
            ["volatile;", f'default "{ASK.decode()}";', f'"~{HASHED}.*[.][^/]+$" "{FOREVER.decode()}";'],
        ),
    ]
