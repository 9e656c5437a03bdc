"""The pickle machine, in plain Python: opcodes make plain data and inert records, and are bounded before they act."""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

from foreign_files.byte_source import ByteSource, UnreadableFileError
from foreign_files.inert import PLAIN_CALLS, Call, Name, UnsafePickleError, build, find_name
from foreign_files.messages import shorten

# An analysis of 80 layers of 64 heads has 100,000 opcodes, an attention file 200.
MAX_OPCODES = 1_000_000
# Keys that are not text have hashes that anyone can make equal, so that their number squared is what they cost.
MAX_ODD_KEYS = 10_000
MAX_PARTS = 1_000_000
MAX_CHARACTERS = 16 << 20
MAX_TEXT = 128 << 20  # in bytes; only old protocols spell the numbers of tensors as text
MAX_KEY = 10_000
MAX_INTEGER_BYTES = 42  # about 100 digits

_SHORT_TEXT = 1 << 20
_NUMBER_LINE = 110
_NEWEST_PROTOCOL = 5
_NAME_LINE = 200
_WHOLE_NUMBER = re.compile(rb"[+-]?[0-9]{1,100}")


@dataclass
class Budget:
    """What all streams of one file may still spend, and how large what it holds may be."""

    opcodes: int = MAX_OPCODES
    odd_keys: int = MAX_ODD_KEYS
    parts: int = MAX_PARTS
    characters: int = MAX_CHARACTERS


def dataset_budget() -> Budget:
    """For a data set that the user names: REFER's 50,000 references take some 13 million steps, half a minute."""
    return Budget(opcodes=60_000_000, parts=60_000_000, characters=1 << 30)


class PickleMachine:
    """Reads one pickle from a source.

    Args:
        source: Where the opcodes come from.
        budget: What may be spent.
        calls: Names that may be called, each with a function of ours that makes an inert record.
        find_stored: Gives the record of a persistent id; None where there can be none.
    """

    def __init__(
        self,
        source: ByteSource,
        budget: Budget,
        calls: Mapping[tuple[str, str], Call] = PLAIN_CALLS,
        find_stored: Optional[Callable[[Any], Any]] = None,
    ) -> None:
        """Begin with an empty stack."""
        self._source = source
        self._budget = budget
        self._most = budget.opcodes
        self._calls = {**calls, **{(module, kind): self._make_set(kind) for module, kind in _SETS}}
        self._find_stored = find_stored
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Read up to STOP.

        Returns:
            Plain data with inert records in it. Parts may be shared or even hold themselves.

        Raises:
            UnreadableFileError: It is damaged, or would cost too much.
            UnsafePickleError: It names what tensors and plain data do not need.
        """
        read, budget = self._source.read, self._budget
        try:
            while (opcode := read(1)) != b".":
                budget.opcodes -= 1
                if budget.opcodes < 0:
                    raise UnreadableFileError("a pickle of more steps than its kind of file needs")
                handle = _HANDLERS.get(opcode)
                if handle is None:
                    raise UnreadableFileError(f"bytes that are no pickle (opcode {opcode!r})")
                handle(self)
            return self._stack.pop()
        except (IndexError, UnicodeError, struct.error, OverflowError, MemoryError) as error:
            raise UnreadableFileError(f"a damaged pickle ({type(error).__name__})") from error

    def _check_protocol(self) -> None:
        protocol = self._read_count("<B")
        if protocol > _NEWEST_PROTOCOL:
            raise UnreadableFileError(f"a pickle of protocol {protocol}")

    # Numbers and text

    def _read_count(self, layout: str) -> int:
        (count,) = struct.unpack(layout, self._source.read(struct.calcsize(layout)))
        if count < 0:
            raise UnreadableFileError("a pickle with a negative size")
        return int(count)

    def _push_packed(self, layout: str) -> None:
        self._stack.append(struct.unpack(layout, self._source.read(struct.calcsize(layout)))[0])

    def _read_number_line(self) -> bytes:
        line = self._source.read_line(_NUMBER_LINE)
        if _WHOLE_NUMBER.fullmatch(line.rstrip(b"L")) is None:
            raise UnreadableFileError(f"a damaged pickle (the number {shorten(line)})")
        return line.rstrip(b"L")

    def _push_int_line(self) -> None:
        line = self._read_number_line()
        self._stack.append(line == b"01" if line in (b"00", b"01") else int(line))

    def _push_float_line(self) -> None:
        line = self._source.read_line(_NUMBER_LINE)
        try:
            self._stack.append(float(line))
        except ValueError as error:
            raise UnreadableFileError(f"a damaged pickle (the number {shorten(line)})") from error

    def _push_long(self, layout: str) -> None:
        count = self._read_count(layout)
        if count > MAX_INTEGER_BYTES:
            raise UnreadableFileError(f"a whole number of {count} bytes, where {MAX_INTEGER_BYTES} are the most")
        self._stack.append(int.from_bytes(self._source.read(count), "little", signed=True))

    def _push_bytes(self, layout: str) -> None:
        self._stack.append(self._source.read(self._read_count(layout)))

    def _push_text(self, layout: str, encoding: str = "utf-8", errors: str = "surrogatepass") -> None:
        count = self._read_count(layout)
        if count > MAX_TEXT:
            raise UnreadableFileError(f"a text of {count} bytes, where {MAX_TEXT} are the most")
        self._stack.append(_as_text(self._source.read(count).decode(encoding, errors)))

    def _push_text_line(self) -> None:
        self._stack.append(_as_text(self._source.read_line(MAX_TEXT).decode("raw-unicode-escape")))

    def _push_quoted_line(self) -> None:
        line = self._source.read_line(_SHORT_TEXT)
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise UnreadableFileError("a damaged pickle (text without quotes)")
        try:
            plain = codecs.escape_decode(line[1:-1])[0]
        except ValueError as error:
            raise UnreadableFileError("a damaged pickle (a broken escape)") from error
        self._stack.append(plain.decode("ascii"))

    # Containers

    def _push_mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _push_tuple(self, size: int) -> None:
        self._stack.append(tuple(self._take(size)))

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _take(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError
        items, self._stack[-count:] = self._stack[-count:], []
        return items

    def _push_items(self, kind: Callable[[list[Any]], Any]) -> None:
        items = self._pop_mark()
        self._stack.append(kind(items))

    def _append(self, items: list[Any]) -> None:
        self._last(list).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._last(dict)
        if len(items) % 2:
            raise UnreadableFileError("a damaged pickle (a key without a value)")
        for key, value in zip(items[::2], items[1::2]):
            target[self._check_key(key)] = value

    def _push_dict(self) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._set_items(items)

    def _add_items(self) -> None:
        items = self._pop_mark()
        self._last(set).update(map(self._check_key, items))

    def _push_frozenset(self) -> None:
        items = self._pop_mark()
        self._stack.append(frozenset(map(self._check_key, items)))

    def _last(self, kind: type) -> Any:
        target = self._stack[-1]
        if not isinstance(target, kind):
            raise UnreadableFileError(f"a damaged pickle (items for a {type(target).__name__})")
        return target

    def _check_key(self, key: Any) -> Any:
        """Keys are text, numbers, or tuples of them: hashing deep tuples would overflow the C stack."""
        parts = key if type(key) is tuple and len(key) <= 8 else (key,)
        if any(type(part) not in (str, bytes, int, float, bool, type(None)) for part in parts):
            raise UnreadableFileError(f"a key of the type {type(key).__name__}")
        if any(type(part) in (str, bytes) and len(part) > MAX_KEY for part in parts):
            raise UnreadableFileError(f"a key of more than {MAX_KEY} characters")
        if type(key) is not str:
            self._budget.odd_keys -= 1
            if self._budget.odd_keys < 0:
                raise UnreadableFileError(f"more than {MAX_ODD_KEYS} keys that are not text")
        return key

    def _make_set(self, kind: str) -> Call:
        def make(arguments: tuple[Any, ...]) -> Any:
            (items,) = arguments or ((),)
            checked = [self._check_key(item) for item in items]
            return set(checked) if kind == "set" else frozenset(checked)

        return make

    # The memo

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise UnreadableFileError("a damaged pickle (a reference to nothing)")
        self._stack.append(self._memo[index])

    def _put(self, index: int) -> None:
        if not 0 <= index < self._most:
            raise UnreadableFileError("a damaged pickle (a reference without bounds)")
        self._memo[index] = self._stack[-1]

    # Names and records

    def _read_name_part(self) -> str:
        return self._source.read_line(_NAME_LINE).decode("utf-8")

    def _push_global(self) -> None:
        module, name = self._read_name_part(), self._read_name_part()
        self._stack.append(find_name(module, name, self._calls))

    def _push_stacked_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise UnreadableFileError("a damaged pickle (a name that is not text)")
        self._stack.append(find_name(module, name, self._calls))

    def _reduce(self) -> None:
        arguments, name = self._stack.pop(), self._stack.pop()
        call = self._calls.get((name.module, name.name)) if isinstance(name, Name) else None
        if call is None or type(arguments) is not tuple:
            raise UnsafePickleError(f"a call of {name if isinstance(name, Name) else type(name).__name__}")
        try:
            self._stack.append(call(arguments))
        except (UnreadableFileError, UnsafePickleError):
            raise
        except (ValueError, TypeError, LookupError) as error:
            raise UnreadableFileError(f"a call of {name} with arguments that it does not take") from error

    def _build(self) -> None:
        state = self._stack.pop()
        build(self._stack[-1], state)

    def _refuse_object(self) -> None:
        raise UnsafePickleError("an object of a class")

    def _push_stored(self, persistent_id: Any) -> None:
        if self._find_stored is None:
            raise UnreadableFileError("a reference to an object outside the pickle")
        self._stack.append(self._find_stored(persistent_id))


def _as_text(text: str) -> Any:
    """Long text can only be bytes in disguise; as such it takes a byte a character."""
    return text if len(text) <= _SHORT_TEXT else text.encode("latin1")


_SETS = [(module, kind) for module in ("builtins", "__builtin__") for kind in ("set", "frozenset")]

_HANDLERS: Mapping[bytes, Callable[[PickleMachine], Any]] = {
    b"\x80": PickleMachine._check_protocol,
    b"\x95": lambda machine: machine._source.read(8),  # FRAME
    b"N": lambda machine: machine._stack.append(None),
    b"\x88": lambda machine: machine._stack.append(True),
    b"\x89": lambda machine: machine._stack.append(False),
    b"I": PickleMachine._push_int_line,
    b"L": lambda machine: machine._stack.append(int(machine._read_number_line())),
    b"J": lambda machine: machine._push_packed("<i"),
    b"K": lambda machine: machine._push_packed("<B"),
    b"M": lambda machine: machine._push_packed("<H"),
    b"\x8a": lambda machine: machine._push_long("<B"),
    b"\x8b": lambda machine: machine._push_long("<i"),
    b"F": PickleMachine._push_float_line,
    b"G": lambda machine: machine._push_packed(">d"),
    b"V": PickleMachine._push_text_line,
    b"X": lambda machine: machine._push_text("<I"),
    b"\x8c": lambda machine: machine._push_text("<B"),
    b"\x8d": lambda machine: machine._push_text("<Q"),
    b"S": PickleMachine._push_quoted_line,
    b"T": lambda machine: machine._push_text("<i", "ascii", "strict"),
    b"U": lambda machine: machine._push_text("<B", "ascii", "strict"),
    b"B": lambda machine: machine._push_bytes("<I"),
    b"C": lambda machine: machine._push_bytes("<B"),
    b"\x8e": lambda machine: machine._push_bytes("<Q"),
    b"\x96": lambda machine: machine._push_bytes("<Q"),  # BYTEARRAY8: nothing here changes bytes
    b"(": PickleMachine._push_mark,
    b"0": PickleMachine._pop,
    b"1": PickleMachine._pop_mark,
    b"2": lambda machine: machine._stack.append(machine._stack[-1]),
    b")": lambda machine: machine._stack.append(()),
    b"\x85": lambda machine: machine._push_tuple(1),
    b"\x86": lambda machine: machine._push_tuple(2),
    b"\x87": lambda machine: machine._push_tuple(3),
    b"t": lambda machine: machine._push_items(tuple),
    b"]": lambda machine: machine._stack.append([]),
    b"l": lambda machine: machine._push_items(list),
    b"a": lambda machine: machine._append([machine._stack.pop()]),
    b"e": lambda machine: machine._append(machine._pop_mark()),
    b"}": lambda machine: machine._stack.append({}),
    b"d": PickleMachine._push_dict,
    b"s": lambda machine: machine._set_items(machine._take(2)),
    b"u": lambda machine: machine._set_items(machine._pop_mark()),
    b"\x8f": lambda machine: machine._stack.append(set()),
    b"\x90": PickleMachine._add_items,
    b"\x91": PickleMachine._push_frozenset,
    b"g": lambda machine: machine._get(int(machine._read_number_line())),
    b"h": lambda machine: machine._get(machine._read_count("<B")),
    b"j": lambda machine: machine._get(machine._read_count("<I")),
    b"p": lambda machine: machine._put(int(machine._read_number_line())),
    b"q": lambda machine: machine._put(machine._read_count("<B")),
    b"r": lambda machine: machine._put(machine._read_count("<I")),
    b"\x94": lambda machine: machine._put(len(machine._memo)),
    b"c": PickleMachine._push_global,
    b"\x93": PickleMachine._push_stacked_global,
    b"R": PickleMachine._reduce,
    b"b": PickleMachine._build,
    b"i": PickleMachine._refuse_object,
    b"o": PickleMachine._refuse_object,
    b"\x81": PickleMachine._refuse_object,
    b"\x92": PickleMachine._refuse_object,
    b"P": lambda machine: machine._push_stored(machine._read_name_part()),
    b"Q": lambda machine: machine._push_stored(machine._stack.pop()),
}
