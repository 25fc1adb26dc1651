"""The table of contents of a zip archive whose entries lie in it uncompressed.

Of our own because entries are wanted as ranges of the mapped file, and Python's `zipfile` reads a
table of any length into memory. Follows APPNOTE.TXT, PKWARE's description of the format, including
its ZIP64 parts, which torch writes.
"""

import struct
from dataclasses import dataclass
from typing import Any

from aavs_jax.convert.files.tensors import Unreadable, damaged, quoted

MOST_ENTRIES = 100_000

_END = struct.Struct("<4s4H2LH")
_END_64_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT = 2**16
_ENCRYPTED = 1
_SEE_ZIP64 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the table.

    Attributes:
      name: of the entry, with '/'.
      place: byte of its local header.
      size: bytes of its content.
      crc: CRC-32 of its content; 0 where the writer was told to leave it out.
      plain: neither compressed nor encrypted.
    """

    name: str
    place: int
    size: int
    crc: int
    plain: bool


def _unpack(layout: struct.Struct, buffer: Any, place: int, mark: bytes) -> tuple:
    """The fields of a record after its mark; raises Unreadable if it is not there."""
    if not 0 <= place <= len(buffer) - layout.size:
        raise damaged("its zip records lie outside of it")
    found, *fields = layout.unpack_from(buffer, place)
    if found != mark:
        raise damaged("a zip record is not where it should be")
    return tuple(fields)


def entries(buffer: Any) -> tuple[list[Entry], int]:
    """The table of contents, in its order, and the byte at which it begins.

    Args:
      buffer: the mapped archive.

    Raises:
      Unreadable: it is cut short or damaged.
    """
    end = buffer.rfind(b"PK\x05\x06", max(0, len(buffer) - _END.size - _LONGEST_COMMENT))
    if end < 0:
        raise Unreadable("is cut short (a zip archive without its end): download it again")
    *_, count, size, place, comment = _unpack(_END, buffer, end, b"PK\x05\x06")
    if end + _END.size + comment > len(buffer):
        raise damaged("it ends within a zip record")
    locator = end - _END_64_LOCATOR.size
    if locator >= 0 and buffer[locator : locator + 4] == b"PK\x06\x07":
        _, end, _ = _unpack(_END_64_LOCATOR, buffer, locator, b"PK\x06\x07")
        *_, count, size, place = _unpack(_END_64, buffer, end, b"PK\x06\x06")
    if place + size > end:
        raise damaged("its table of contents lies outside of it")
    if count > MOST_ENTRIES or count * _CENTRAL.size > size:
        raise damaged(f"a table of contents of {count} entries")
    found, at = [], place
    for _ in range(count):
        entry, at = _entry(buffer, at, place + size)
        found.append(entry)
    if len({entry.name for entry in found}) < len(found):
        raise damaged("two entries of the same name")
    return found, place


def _entry(buffer: Any, at: int, stop: int) -> tuple[Entry, int]:
    """The line of the table at a byte, and the byte after it."""
    fields = _unpack(_CENTRAL, buffer, at, b"PK\x01\x02")
    _, _, flags, method, _, _, crc, packed, size, name_size, extra_size, comment, *_, place = fields
    name_at = at + _CENTRAL.size
    extra_at = name_at + name_size
    after = extra_at + extra_size + comment
    if after > stop:
        raise damaged("its table of contents breaks off")
    try:
        name = buffer[name_at:extra_at].decode()
    except UnicodeDecodeError:
        raise damaged("an entry without a readable name") from None
    wide = _zip64(buffer[extra_at : extra_at + extra_size])
    # In this order, and only those that did not fit the plain record.
    values = []
    for value in (size, packed, place):
        if value == _SEE_ZIP64:
            if not wide:
                raise damaged("an entry without a size")
            value = wide.pop(0)
        values.append(value)
    size, packed, place = values
    plain = method == 0 and not flags & _ENCRYPTED
    if plain and size != packed:
        raise damaged(f"the size of the entry {quoted(name)}")
    return Entry(name, place, size, crc, plain), after


def _zip64(extra: bytes) -> list[int]:
    """The wide numbers among the extra fields of an entry."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4 : at + 4 + size]
        if kind == 1:
            return list(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
        at += 4 + size
    return []


def contents(buffer: Any, table: list[Entry], stop: int) -> dict[str, tuple[int, int]]:
    """First byte and size of every entry's content.

    Args:
      buffer: the mapped archive.
      table: its entries.
      stop: byte at which the table begins, and all content has to end.

    Raises:
      Unreadable: an entry is compressed (which hides how large it is), encrypted, lies outside of
        the archive or over another.
    """
    found, free = {}, 0
    for entry in sorted(table, key=lambda entry: entry.place):
        if not entry.plain:
            raise Unreadable(
                f"has a compressed or encrypted entry ({quoted(entry.name)}), which torch never "
                "writes; it was not opened: get the file as torch.save wrote it"
            )
        if entry.place < free:
            raise damaged("entries that lie over each other")
        _, flags, method, *_, name_size, extra_size = _unpack(
            _LOCAL, buffer, entry.place, b"PK\x03\x04"
        )
        name_at = entry.place + _LOCAL.size
        start = name_at + name_size + extra_size
        free = start + entry.size
        if method or flags & _ENCRYPTED or free > stop:
            raise damaged(f"the entry {quoted(entry.name)} is not what the table says")
        if buffer[name_at : name_at + name_size] != entry.name.encode():
            raise damaged(f"the entry {quoted(entry.name)} is not where the table says")
        found[entry.name] = start, entry.size
    return found
