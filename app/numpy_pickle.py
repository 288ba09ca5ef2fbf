"""Reads the dictionaries of arrays that `numpy.save` and `pickle.dump` leave, safely and mapped.

A pickle is a program, and unpickling runs it. This reads the program as data instead: a
small interpreter of those instructions that arrays, dictionaries, lists, texts and numbers
are made of. It looks nothing up and calls nothing; any other name or instruction ends in
an error. The bytes of large arrays are not read but mapped, so that a file of many
gigabytes takes no memory.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from acquisition.errors import RecordingError, SourceNotFoundError

MAGIC = b"\x93NUMPY"
# Shorter strings of bytes are read, longer ones mapped.
MAPPED = 65_536
_MARK = object()
_CONSTANTS = {"MARK": _MARK, "NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
           "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8")  # fmt: skip
_TUPLES = {"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# What numpy's arrays, dtypes and scalars name, in its versions 1 and 2.
_KNOWN = {
    f"{module} {name}"
    for name, modules in {
        "_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"),
        "scalar": ("numpy.core.multiarray", "numpy._core.multiarray"),
        "ndarray": ("numpy",),
        "dtype": ("numpy",),
    }.items()
    for module in modules
}


class _RefusedError(Exception):
    """An instruction or a name that no array needs."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A name that a pickle asks for; it stays a name."""

    text: str


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes of the file that were not read."""

    offset: int
    length: int

    def __len__(self) -> int:
        return self.length


@dataclass(slots=True)
class _Array:
    """An array or dtype in the making; filled by BUILD, as a list may hold it before."""

    kind: str
    value: Any = None


class _Lazy:
    """A file that gives long reads as a `_Span`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, n: int) -> Any:
        if n < MAPPED:
            return self._file.read(n)
        start = self._file.tell()
        end = self._file.seek(0, 2)
        self._file.seek(min(start + n, end))
        return _Span(start, min(n, end - start))

    def readline(self) -> bytes:
        return self._file.readline(MAPPED)

    def tell(self) -> int:
        return self._file.tell()


def read_numpy_pickle(path: Path) -> Any:
    """What `numpy.save(path, dictionary)` or `pickle.dump` wrote.

    Returns
    -------
    the dictionary (or list, text, number, array). Arrays are read-only, large ones mapped.

    Raises
    ------
    SourceNotFoundError
        There is no such file.
    RecordingError
        It is damaged, or a pickle that asks for more than arrays; nothing of it was run.
    """
    if not path.is_file():
        raise SourceNotFoundError(f"There is no file {path}. Check the path.")
    with path.open("rb") as file:
        try:
            if file.read(len(MAGIC)) == MAGIC:
                major = file.read(2)[0]
                read = {1: np.lib.format.read_array_header_1_0,
                        2: np.lib.format.read_array_header_2_0}[major]  # fmt: skip
                shape, _, dtype = read(file)
                if not dtype.hasobject:
                    return np.load(path, mmap_mode="r", allow_pickle=False)
                if shape != ():
                    raise _RefusedError(f"an array of objects of shape {shape}")
            else:
                file.seek(0)
            value = _finished(_run(file, path))
        except _RefusedError as error:
            raise RecordingError(
                f"{path.name} was not opened: it is a pickle that asks for {error}, which no "
                "array needs and which could run any program. Take the file from its makers."
            ) from error
        except (
            ValueError, LookupError, TypeError, AttributeError, EOFError, StopIteration,
            RecursionError,
        ) as error:  # fmt: skip
            raise RecordingError(
                f"{path.name} is damaged, or no dictionary of numpy arrays ({error}). "
                "Fetch it again."
            ) from error
    return value


def _run(file: BinaryIO, path: Path) -> Any:
    """Interpret the instructions; see the module `pickletools` for what each means."""
    machine = _Machine(path)
    for opcode, argument, _ in pickletools.genops(_Lazy(file)):  # type: ignore[arg-type]
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.do(opcode.name, argument)
    raise ValueError("the end is missing")


class _Machine:
    """The stack and memory of a pickle."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def do(self, name: str, argument: Any) -> None:
        """One instruction."""
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            stack.append(argument)
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"DICT": {}, "LIST": [], "TUPLE": ()}[name[6:]])
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1 if name == "APPEND" else None)
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2 if name == "SETITEM" else None)
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_name(argument if name == "GLOBAL" else " ".join(self._pop(2))))
        elif name == "REDUCE":
            stack.append(_reduce(*self._pop(2)))
        elif name == "BUILD":
            state = stack.pop()
            _build(self._path, stack[-1], state)
        else:
            raise _RefusedError(f"the instruction {name}")

    def _pop(self, n: int | None) -> list[Any]:
        """The topmost `n`, or for None those above the last mark, which goes too."""
        if n is None:
            at = next(i for i in reversed(range(len(self.stack))) if self.stack[i] is _MARK)
            items = self.stack[at + 1 :]
            del self.stack[at:]
        else:
            items = self.stack[-n:]
            del self.stack[-n:]
        return items


def _name(text: str) -> _Name:
    if text not in _KNOWN:
        raise _RefusedError(f"'{text.replace(' ', '.')}'")
    return _Name(text.rpartition(" ")[2])


def _reduce(name: _Name, arguments: tuple[Any, ...]) -> Any:
    if name.text == "dtype":
        return _Array("dtype", np.dtype(_plain_dtype(arguments[0])))
    if name.text == "_reconstruct":
        return _Array("array")
    if name.text == "scalar":
        dtype, data = arguments
        return np.frombuffer(data, dtype.value)[0].item()
    raise _RefusedError(f"a call of '{name.text}'")


def _plain_dtype(code: Any) -> str:
    """Numbers, texts and objects; nothing with fields."""
    if not isinstance(code, str) or code[:1] not in "biufcUSOM?":
        raise _RefusedError(f"the type {code!r}")
    return code


def _build(path: Path, target: _Array, state: tuple[Any, ...]) -> None:
    if target.kind == "dtype":
        if state[1] in ("<", ">"):
            target.value = target.value.newbyteorder(state[1])
        return
    _, shape, dtype, is_fortran, data = state
    order: Literal["C", "F"] = "F" if is_fortran else "C"
    shape = tuple(map(int, shape))
    if dtype.value.hasobject:
        items = np.empty(len(data), object)
        for i, item in enumerate(data):
            items[i] = _finished(item)
        target.value = items.reshape(shape, order=order)
    elif isinstance(data, _Span):
        if len(data) != np.prod(shape, dtype=np.int64) * dtype.value.itemsize:
            raise ValueError("an array's bytes are cut off")
        target.value = np.memmap(path, dtype.value, "r", data.offset, shape, order)
    else:
        target.value = np.frombuffer(data, dtype.value).reshape(shape, order=order)


def _finished(value: Any) -> Any:
    """The value with its arrays in place; a text array of no dimension becomes its value."""
    if isinstance(value, _Array):
        array = value.value
        is_boxed = isinstance(array, np.ndarray) and array.shape == () and array.dtype.hasobject
        return _finished(array.item()) if is_boxed else array
    if isinstance(value, dict):
        return {_finished(k): _finished(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(v) for v in value)
    return value
