"""A process that has everything loaded and forks children on request: cheap in time and memory.

A fork shares its parent's pages until one of the two writes to them. So the parent loads all modules, arranges its
memory (`sharing`), moves every object out of the garbage collector's sight (`gc.freeze`; it would otherwise write to
all of them) and does nothing but fork; a child imports nothing and costs what it itself writes. What can be done
before the fork is done there, and what a child does before its own work begins uses as few different functions as can
be: each that runs costs a page or more (its code, its names, its types).

It has one thread and runs no event loop: fork copies only the calling thread, and locks that others hold would stay
locked in the child for ever.

The control connection carries JSON objects, one a line, bounded by MAX_LINE:

    to us     {"spawn": ID, "args": {...}, "limits": {...}, "record": {"path": PATH, "value": {...}}}
    from us   {"ready": PID}                                    once, when children can be had
              {"spawned": ID, "pid": PID}                       PID's session and process group are its own
              {"failed": ID, "error": TEXT}
              {"exited": ID, "pid": PID, "status": STATUS}      STATUS as `os.waitstatus_to_exitcode` gives it

The end of the control connection ends the server. Its children live on: whoever opened the connection may have
crashed, and its successor wants to find them.
"""

import ctypes
import gc
import json
import logging
import os
import random
import select
import signal
import socket
from _signal import signal as set_handler  # type: ignore[import-not-found] # without its wrapper's enumerations
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from os import closerange, setsid, umask  # by name: looking a name up in a module costs a child three pages
from pathlib import Path
from resource import (
    RLIM_INFINITY,
    RLIMIT_AS,
    RLIMIT_CORE,
    RLIMIT_NOFILE,
    RLIMIT_NPROC,
    getrlimit,
    setrlimit,
)
from signal import set_wakeup_fd
from typing import Any, NoReturn

from cloudtolocalllm.runtime import processes, sharing

log = logging.getLogger(__name__)

MAX_LINE = 64 * 1024
"""Bytes of one message; a request is about 1 KiB."""

# linux/prctl.h
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_SIGCHLD = int(signal.SIGCHLD)
_DEFAULT = int(signal.SIG_DFL)
"""As plain numbers: converting the enumeration's members costs a new child 36 pages, as `signal.signal` does."""

KEPT_VARIABLES = ("LANG", "LC_ALL", "TZ")
"""What a child may know of the environment."""

ChildMain = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """What one child may use."""

    address_space: int = 1024 * 1024 * 1024
    """Bytes (RLIMIT_AS)."""
    open_files: int = 4096
    processes: int = 0
    """Further processes and threads (RLIMIT_NPROC); the kernel does not apply it to root."""
    dumpable: bool = True
    """Whether processes of the same user may read its memory and its /proc files (PR_SET_DUMPABLE)."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """A child to be made."""

    id: str
    args: dict[str, Any]
    """Handed to the child's main function."""
    limits: ChildLimits
    record_path: str
    """A file that the child writes before anything else, mode 0600, complete or not at all."""
    record: dict[str, Any]
    """Its content, a JSON object, to which the child adds "pid" and "started" (`processes.start_time`)."""

    def to_line(self) -> bytes:
        """Return the message.

        Raises:
            ValueError: It is longer than MAX_LINE.
        """
        line = json.dumps(
            {
                "spawn": self.id,
                "args": self.args,
                "limits": self.limits.to_json(),
                "record": {"path": self.record_path, "value": self.record},
            }
        ).encode()
        if len(line) >= MAX_LINE:
            raise ValueError(f"expected a spawn request of less than {MAX_LINE} bytes, got {len(line)}")
        return line + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "SpawnRequest":
        """Read what `to_line` wrote.

        Raises:
            ValueError, KeyError, TypeError: It is malformed.
        """
        value = json.loads(line)
        return cls(
            id=str(value["spawn"]),
            args=dict(value["args"]),
            limits=ChildLimits(**value["limits"]),
            record_path=str(value["record"]["path"]),
            record=dict(value["record"]["value"]),
        )


def write_record(path: str | Path, value: dict[str, Any]) -> None:
    """Write a JSON object to a file, mode 0600, so that a reader sees the old content or the new, never a part."""
    draft = f"{path}.new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(value).encode())
    finally:
        os.close(descriptor)
    os.rename(draft, path)  # noqa: PTH104 - a Path costs a new child 30 pages


def run(control: socket.socket, preload: Callable[[], None], child: ChildMain, *, name: str) -> None:
    """Serve until the other end of the control connection closes.

    Args:
        control: A connected stream socket.
        preload: Imports and warms up all that children use; leaves no thread behind, and no descriptor but those that
            a library makes anew in each forked child, as libuv does with a pipe.
        child: Runs in each child with the request's arguments; the child ends when it returns.
        name: What `ps -o comm` shows for a child; 15 bytes at most.

    Raises:
        RuntimeError: Preloading left a thread running.
    """
    # Without collections in between, the freed blocks that later writes would fill lie together (gc.freeze's docs).
    gc.disable()
    before = _descriptors()
    preload()
    own = sorted(_descriptors() - before)
    _fill_below(own)
    kernel = _Kernel()
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise RuntimeError(f"expected one thread before forking, got {threads}: preloading must not start any")
    kept = {key: value for key in KEPT_VARIABLES if (value := os.environ.get(key)) is not None}  # noqa: TID251 - emptied here
    os.environ.clear()  # noqa: TID251 - emptied here
    os.environ.update(kept)  # noqa: TID251 - emptied here
    server = _Server(control, child, kernel, name, own)
    sharing.fill_holes()
    gc.freeze()
    server.serve()


def _descriptors() -> set[int]:
    found = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 - names are what is wanted
    return {descriptor for descriptor in found if Path(f"/proc/self/fd/{descriptor}").exists()}


def _fill_below(own: list[int]) -> None:
    """Leave no number free below a library's descriptors, so that those it makes anew in a child have the same."""
    while own:
        descriptor = os.dup(0)
        if descriptor > own[-1]:
            os.close(descriptor)
            return


class _Kernel:
    """System calls as C functions, called without letting go of the interpreter's lock."""

    def __init__(self) -> None:
        libc = ctypes.PyDLL(None, use_errno=True)
        self.fork = libc.fork
        self.prctl = libc.prctl
        self.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

    def failed(self, name: str) -> OSError:
        """Return the error of the call that just failed."""
        error = ctypes.get_errno()
        return OSError(error, f"{name}: {os.strerror(error)}")


class _Server:
    """The loop: requests in, forks, exits out."""

    def __init__(self, control: socket.socket, child: ChildMain, kernel: _Kernel, name: str, own: list[int]) -> None:
        self._control = control
        self._child = child
        self._kernel = kernel
        self._name = name
        self._own = own
        self._children: dict[int, str] = {}
        self._received = bytearray()

    def serve(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as children want it; we are in a session of our own
        wake_in, wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake_in, select.POLLIN)
        self._tell({"ready": os.getpid()})
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == wake_in:
                    os.read(wake_in, 4096)
                    self._reap()
                elif not self._receive():
                    return

    def _receive(self) -> bool:
        """Serve what came; return False at the end of the connection."""
        try:
            data = self._control.recv(MAX_LINE)
        except ConnectionResetError:
            return False
        self._received += data
        while (end := self._received.find(b"\n")) >= 0:
            line = bytes(self._received[:end])
            del self._received[: end + 1]
            self._spawn(line)
        if len(self._received) > MAX_LINE:
            log.error("expected a request of at most %d bytes, got more: ending", MAX_LINE)
            return False
        return data != b""

    def _spawn(self, line: bytes) -> None:
        try:
            request = SpawnRequest.from_line(line)
        except (ValueError, KeyError, TypeError):
            log.exception("malformed request")
            return
        try:
            # Not os.fork, whose hooks for processes with threads cost a child 0.4 MB: there is one thread, and it
            # holds no lock. Of the hooks only the one for random numbers matters (see _be_child).
            pid = self._kernel.fork()
            if pid < 0:
                raise self._kernel.failed("fork")
        except OSError as error:
            log.error("fork failed", extra={"id": request.id, "error": error.strerror})  # noqa: TRY400 - no traceback needed
            self._tell({"failed": request.id, "error": error.strerror})
            return
        if pid == 0:
            self._be_child(request)
        self._children[pid] = request.id
        self._tell({"spawned": request.id, "pid": pid})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            instance = self._children.pop(pid, "")
            log.log(
                logging.INFO if code == 0 else logging.WARNING,
                "child ended",
                extra={"id": instance, "pid": pid, "status": code},
            )
            self._tell({"exited": instance, "pid": pid, "status": code})

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            log.info("nobody listens any more", extra={"message_kind": next(iter(message))})

    def _be_child(self, request: SpawnRequest) -> NoReturn:
        code = 1
        try:
            confine(request.limits, self._kernel, self._name, self._own)
            random.seed()
            value = {**request.record, "pid": os.getpid(), "started": processes.start_time(os.getpid())}
            write_record(request.record_path, value)
            gc.enable()
            self._child(request.args)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            log.exception("child failed", extra={"id": request.id})
        finally:
            # Never back into the server's loop, and none of the parent's exit handlers.
            logging.shutdown()
            os._exit(code)


def confine(limits: ChildLimits, kernel: _Kernel, name: str, own: list[int]) -> None:
    """Cut this process off from what it inherited and bound what it may use.

    After: own session and process group; no descriptor but the standard ones (`control_socket` leaves input empty;
    the others go where the server's go) and a child's `own`; default signal handling; limits set; no way to gain
    privileges. The environment was emptied, but for KEPT_VARIABLES, before the fork.
    """
    setsid()
    set_wakeup_fd(-1)
    set_handler(_SIGCHLD, _DEFAULT)  # the only one that the server handles
    first = 3
    for descriptor in own:
        closerange(first, descriptor)
        first = descriptor + 1
    closerange(first, max(4096, getrlimit(RLIMIT_NOFILE)[0]))
    umask(0o077)
    comm = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(comm, name.encode())
    os.close(comm)
    for kind, value in (
        (RLIMIT_CORE, 0),
        (RLIMIT_AS, limits.address_space),
        (RLIMIT_NOFILE, limits.open_files),
        (RLIMIT_NPROC, limits.processes),
    ):
        _, hard = getrlimit(kind)
        bound = value if hard == RLIM_INFINITY else min(value, hard)
        setrlimit(kind, (bound, bound))
    if kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise kernel.failed("prctl(PR_SET_NO_NEW_PRIVS)")
    if not limits.dumpable and kernel.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise kernel.failed("prctl(PR_SET_DUMPABLE)")


def control_socket() -> socket.socket:
    """Take the control connection over from standard input, which reads as empty from then on.

    Raises:
        OSError: Standard input is not a socket.
    """
    control = socket.socket(fileno=os.dup(0))
    control.setblocking(True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return control


def scrubbed_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that a fork server is started with.

    /proc/PID/environ of a child shows what its fork server was started with, whatever the child clears.
    """
    return {key: environ[key] for key in KEPT_VARIABLES if key in environ}
