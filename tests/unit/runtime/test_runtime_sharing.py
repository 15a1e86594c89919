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


class _Propertied:
    def __init__(self) -> None:
        self._value = 1

    @property
    def value(self) -> int:
        """How many."""
        return self._value

    @value.setter
    def value(self, new: int) -> None:
        self._value = new


def test_properties_that_ran_are_moved() -> None:
    old = vars(_Propertied)["value"]
    one = _Propertied()
    repacker = sharing.Repacker()
    repacker.watch()
    one.value += 1
    repacker.pack()
    new = vars(_Propertied)["value"]
    assert new.fget is not old.fget
    assert new.fset is not old.fset
    assert new.__doc__ == "How many."
    one.value += 1
    assert one.value == 3
    with pytest.raises(AttributeError):
        del one.value


def _listed(*values: object) -> list[object]:
    return list(values)


def _constants() -> list[object]:
    return _listed(
        b"",
        b"a",
        b"ab",
        "",
        "x",
        "name",
        "two words",
        "ü" * 50,
        "x y" * 100,
        1.5,
        -0.0,
        7,
        None,
        (1, "a b"),
        ...,
    )


def test_constants_of_code_that_ran_are_the_same_in_kind_and_value() -> None:
    before = _constants()
    repacker = sharing.Repacker()
    repacker.watch()
    _constants()
    repacker.pack()
    after = _constants()
    assert [repr(value) for value in after] == [repr(value) for value in before]
    assert [type(value) for value in after] == [type(value) for value in before]
    moved = [repr(old) for old, new in zip(before, after, strict=True) if old is not new]
    assert moved == ["b'ab'", "'two words'", repr("ü" * 50), "1.5", "-0.0"]


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
