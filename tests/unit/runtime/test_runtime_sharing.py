"""What arranges memory before forks must change nothing that a program can see."""

import sys
from collections.abc import Callable

import pytest

from cloudtolocalllm.runtime import sharing


def _adder(step: int) -> Callable[[int], int]:
    def add(value: int) -> int:
        return value + step

    return add


def _never() -> int:
    return 1


def test_code_that_ran_is_moved_and_works_as_before() -> None:
    add = _adder(3)
    before, idle = add.__code__, _never.__code__
    repacker = sharing.Repacker()
    repacker.watch()
    assert add(4) == 7
    assert _adder(1)(1) == 2
    repacker.pack()
    assert add.__code__ is not before
    assert add.__code__ == before
    assert add(4) == 7
    assert _adder(5).__code__ is add.__code__, "functions made later have the copy too"
    assert _never.__code__ is idle
    assert sys.getprofile() is None


class _Holder:
    def method(self, value: int, *, by: int = 2) -> int:
        """Multiply."""
        return value * by

    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    def calls_super(self) -> str:
        return super().__repr__()[:1]


def test_functions_that_ran_are_moved_where_modules_and_classes_name_them() -> None:
    holder, old = _Holder(), _Holder.method
    bound = holder.method
    module_level = _adder
    repacker = sharing.Repacker()
    repacker.watch()
    assert (holder.method(2), holder.static(), holder.of_class(), holder.calls_super()) == (
        4,
        "static",
        "_Holder",
        "<",
    )
    _adder(1)
    repacker.pack()
    assert _Holder.method is not old
    assert _adder is not module_level
    assert (holder.method(2, by=3), holder.static(), holder.of_class(), holder.calls_super()) == (
        6,
        "static",
        "_Holder",
        "<",
    )
    assert bound(5) == 10, "who holds the old one goes on"
    assert _Holder.method.__doc__ == "Multiply."
    assert _Holder.method.__qualname__ == old.__qualname__
    assert _Holder.method.__annotations__ == old.__annotations__


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="CPython's allocator")
def test_holes_are_filled() -> None:
    scattered: list[object] = [bytes(200) for _ in range(20_000)]
    del scattered[::2]
    free = sharing._available()
    sharing.fill_holes()
    left = sharing._available()
    assert sum(free.values()) > 9_000
    assert sum(left.values()) < sum(free.values()) / 4
    assert len(scattered) == 10_000


def test_zeros_that_were_given_back_are_zeros_still() -> None:
    size = 1 << 20
    value = bytes(size - 1) + b"x"
    sharing.give_back_zeros(value)
    assert value.count(0) == size - 1
    assert value[-1:] == b"x"
    full = b"y" * size
    sharing.give_back_zeros(full)
    assert full.count(b"y") == size
