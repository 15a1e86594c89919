"""Arranges a process's memory before it forks, so that its children write to few of the pages that they share.

A child that only runs code writes to it all the same: reference counts lie within objects. What it costs is therefore
the number of pages that hold something it uses, 4 kB each for as little as 8 bytes. Two remedies:

- `Repacker` copies the code objects that ran, which lie scattered among those that never do, next to each other
  (CPython lays each out as one block with its instructions). Their functions and constants as well.
  Measured for the proxy: 0.7 MB a child.
- `fill_holes` occupies the free blocks that lie between objects that are shared, so that what a child allocates lies
  together on pages of its own. Measured: 0.2 MB a child.

Both are for CPython on glibc, and do nothing but use a little more memory elsewhere.
"""

import contextlib
import ctypes
import gc
import mmap
import os
import re
import sys
import time
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

MAX_BLOCKS = 20_000
"""Blocks of one size that are occupied at most; 300 are usual."""
MAX_CHUNKS = 5_000
"""Chunks of malloc's that are occupied at most; 600 are usual."""

_held: list[object] = []
"""What occupies the holes, for the life of the process."""

_PAGE = mmap.PAGESIZE
_MADV_DONTNEED = 4
"""linux/mman.h. Elsewhere it is advice that leaves the content undefined."""
_madvise = ctypes.PyDLL(None).madvise if sys.platform == "linux" else None
if _madvise is not None:
    _madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

_POOL_LINE = re.compile(r"^ +\d+ +(\d+) +\d+ +\d+ +(\d+)$", re.MULTILINE)
"""Of `sys._debugmallocstats`: class, size, pools, blocks in use, blocks available."""
_NAME = re.compile("[A-Za-z0-9_]+")
"""Constants that the interpreter interns."""
_BYTES_OVERHEAD = sys.getsizeof(b"")
_CACHED_SIZES = range(24, 1033, 16)
_CACHED = 7
"""Of glibc's cache of freed chunks: the sizes it keeps, and how many of each."""
_CHUNK_SIZES = (65536, 16384, 4096, 2048, 1536, 1024, 768, 640, 512, 384, 256, 128, 64, 24)


class Repacker:
    """Notes which code runs, then moves it together."""

    def __init__(self) -> None:
        self._ran: dict[int, CodeType] = {}
        """By id, for equal code may be two objects. In the order of the first run: what runs together comes to lie
        together."""
        self._copies: dict[int, CodeType] = {}
        self._constants: dict[int, object] = {}

    def watch(self) -> None:
        """Begin to note what runs on this thread."""
        sys.setprofile(self._note)

    def pack(self) -> None:
        """Move the code that ran; functions get it at their next call."""
        sys.setprofile(None)
        fill_holes()  # or the copies would go there
        order = {code: place for place, code in enumerate(self._ran)}
        functions: list[tuple[int, FunctionType]] = []
        for value in gc.get_objects():
            if type(value) is FunctionType:
                place = order.get(id(value.__code__))
                if place is not None:
                    functions.append((place, value))
        functions.sort(key=lambda item: item[0])
        replaced = [function.__code__ for _, function in functions]  # kept until the end: an id is not used twice
        for code in self._ran.values():  # first: they should lie together as well
            for value in code.co_consts:
                if id(value) not in self._constants and (again := _again(value)) is not value:
                    self._constants[id(value)] = again
        for _, function in functions:
            function.__code__ = self._copy(function.__code__, order)
        _move([function for _, function in functions])
        del replaced
        self._ran.clear()
        self._copies.clear()
        self._constants.clear()

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self._ran.setdefault(id(frame.f_code), frame.f_code)

    def _copy(self, code: CodeType, order: dict[int, int]) -> CodeType:
        """Return a copy of code and of the code of the functions that it makes, as far as that ran."""
        copy = self._copies.get(id(code))
        if copy is None:
            constants = tuple([self._constant(value, order) for value in code.co_consts])
            copy = self._copies[id(code)] = code.replace(co_consts=constants)
        return copy

    def _constant(self, value: Any, order: dict[int, int]) -> Any:
        if type(value) is CodeType:
            return self._copy(value, order) if id(value) in order else value
        return self._constants.get(id(value), value)


def _again(value: object) -> object:
    """Return a copy of a constant if it is of a kind, and short enough, to lie together with others."""
    if type(value) is bytes and len(value) > 1:
        return value[:1] + value[1:]
    if type(value) is str and len(value) < 100 and not _NAME.fullmatch(value):  # names are interned
        return value[:1] + value[1:]
    if type(value) is float:
        return value * 1.0
    return value


def _move(functions: list[FunctionType]) -> None:
    """Put copies of functions, made one after the other, where modules and classes name them.

    Whoever holds one by another way keeps the old one, which does the same.
    """
    moved: dict[int, FunctionType] = {}
    for function in functions:
        if not function.__dict__:  # an attribute may be how somebody knows it
            moved[id(function)] = _copied(function)
    for holder in gc.get_objects():
        kind = type(holder)
        if kind is ModuleType:
            for name, value in list(vars(holder).items()):
                if type(value) is FunctionType and id(value) in moved:
                    setattr(holder, name, moved[id(value)])
        elif isinstance(holder, type):
            _move_in_class(holder, moved)


def _move_in_class(holder: type, moved: dict[int, FunctionType]) -> None:
    for name, value in list(vars(holder).items()):
        new: object = None
        if type(value) is FunctionType:
            new = moved.get(id(value))
        elif type(value) is property:
            new = _moved_property(value, moved)
        elif type(value) in (staticmethod, classmethod):
            inner = moved.get(id(value.__func__))
            new = type(value)(inner) if inner is not None else None
        if new is not None:
            with contextlib.suppress(TypeError):  # a type that cannot be written
                setattr(holder, name, new)


def _moved_property(value: property, moved: dict[int, FunctionType]) -> property | None:
    def new(function: Any) -> Any:
        return moved.get(id(function), function)

    if not any(id(function) in moved for function in (value.fget, value.fset, value.fdel)):
        return None
    return property(new(value.fget), new(value.fset), new(value.fdel), value.__doc__)


def _copied(function: FunctionType) -> FunctionType:
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__ = function.__qualname__
    copy.__module__ = function.__module__
    copy.__doc__ = function.__doc__
    copy.__annotations__ = function.__annotations__
    return copy


def give_back_zeros(value: object) -> None:
    """Return to the kernel the pages within an object that hold nothing but zeros; they read as zeros still.

    Nothing else may write to the object meanwhile. Linux only; elsewhere nothing happens.
    """
    if _madvise is None:
        return
    first = (id(value) + _PAGE - 1) // _PAGE * _PAGE
    last = (id(value) + sys.getsizeof(value)) // _PAGE * _PAGE
    zeros = bytes(_PAGE)
    while first < last and ctypes.string_at(first, _PAGE) != zeros:
        first += _PAGE
    end = first
    while end < last and ctypes.string_at(end, _PAGE) == zeros:
        end += _PAGE
    if end > first:
        _madvise(first, end - first, _MADV_DONTNEED)


def fill_holes() -> None:
    """Occupy the free blocks of Python's allocator and of malloc's, where these are what we know them to be."""
    gc.unfreeze()  # what was frozen may be garbage by now
    gc.collect()
    _fill_pools()
    _fill_heap()


def _fill_pools() -> None:
    for size, count in _available().items():
        _held.extend([_object_of(size) for _ in range(min(count, MAX_BLOCKS))])


def _object_of(size: int) -> object:
    """Return an object that takes a block of this size, a multiple of 16, and that nothing else refers to."""
    if size == 16:
        return object()
    if size == 32:
        return time.monotonic()  # 24 bytes; the shortest bytes objects are shared ones
    return bytes(size - _BYTES_OVERHEAD)


def _available() -> dict[int, int]:
    """Return how many blocks of each size are free in pools that are partly in use."""
    file = os.memfd_create("allocator")
    errors = os.dup(2)
    try:
        os.dup2(file, 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(errors, 2)
        text = os.pread(file, 1 << 20, 0).decode("ascii", "replace")
    finally:
        os.close(errors)
        os.close(file)
    return {int(size): int(count) for size, count in _POOL_LINE.findall(text)}


class _Mallinfo2(ctypes.Structure):
    """malloc.h of glibc 2.33 and later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _fill_heap() -> None:
    libc = ctypes.CDLL(None)
    try:
        mallinfo, malloc, trim = libc.mallinfo2, libc.malloc, libc.malloc_trim
    except AttributeError:  # another C library
        return
    mallinfo.restype = _Mallinfo2
    malloc.restype = ctypes.c_void_p
    malloc.argtypes = [ctypes.c_size_t]
    for size in _CACHED_SIZES:  # before the rest: what lies in a thread's cache is free and not counted as such
        for _ in range(_CACHED):
            malloc(size)
    trim(ctypes.c_size_t(0))
    left = MAX_CHUNKS
    for size in _CHUNK_SIZES:
        while left > 0:
            before = mallinfo()
            if before.fordblks - before.keepcost < size:
                break
            malloc(size)  # never freed
            left -= 1
            if mallinfo().keepcost < before.keepcost:
                break  # it came from the end of the heap: no hole is as large
