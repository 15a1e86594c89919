"""nginx's processes, as the system tells of them."""

from pathlib import Path

LEAVING = b"nginx: worker process is shutting down"
"""What a worker calls itself from the moment that it accepts nothing more."""


def workers(master: int) -> dict[int, bool]:
    """Return the process ids of nginx's workers, and whether each is on its way out."""
    try:
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    except OSError:  # it has ended
        return {}
    found = {}
    for text in children:
        try:
            title = Path(f"/proc/{text}/cmdline").read_bytes()
        except OSError:
            continue
        found[int(text)] = title.startswith(LEAVING)
    return found


def accepting(master: int) -> set[int]:
    """Return the workers that accept connections."""
    return {pid for pid, leaves in workers(master).items() if not leaves}


def leaving(master: int) -> set[int]:
    """Return the workers that only finish what they have."""
    return {pid for pid, leaves in workers(master).items() if leaves}
