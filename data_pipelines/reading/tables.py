"""Tables as users have them, read within bounds: whatever a file holds, memory stays small.

One line is one row: no published table has line breaks inside a cell, and so an unclosed quotation
mark harms its own row only.
"""

import csv
import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.errors import DataError
from data_pipelines.reading.names import SHOWN, shown
from data_pipelines.reading.raw import Finding, RawClip

MAX_BYTES = 256 * 2**20  # of a table
MAX_LINE = 2**20  # bytes
MAX_ROWS = 250_000  # twenty times AVSBench: all that is said about bad rows is kept in memory
MAX_JSON = 4 * 2**20  # bytes
MAX_CLASSES = 255  # ids of uint8 label maps, of which 255 says that a pixel is ignored


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table."""

    line: int  # its number in the file, from 1
    cells: dict[str, str]  # by column asked for; "" where the row is too short
    fault: str = ""  # why the row cannot be read ("" if it can; then `cells` is empty)


def read_rows(
    path: Path,
    columns: Mapping[str, tuple[str, ...]] | tuple[str, ...],
    optional: Collection[str] = (),
) -> Iterator[Row]:
    """Reads a csv file: UTF-8 with or without a byte-order mark, any line ends, quotes.

    Args:
        path: of the table, whose first line names its columns.
        columns: what is asked for -> the names which its column may have, small letters; or a
            tuple of what the columns hold, by their order.
        optional: those of them that may be missing (and then are "").

    Yields:
        Every row that is not blank.

    Raises:
        DataError: no such file, too big, no readable header, columns missing, too many rows.
    """
    check_size(path, MAX_BYTES)
    places = None
    rows = 0
    for line, cells, fault in _parsed(path):
        if places is None:
            if fault:
                raise DataError(f"{path} cannot be read as a table: its first line {fault}")
            places = _places(path, cells, columns)
            missing = [key for key in columns if places[key] is None and key not in optional]
            if missing:
                raise DataError(f"{path} lacks the columns {', '.join(missing)}")
            continue
        rows += 1
        if rows > MAX_ROWS:
            raise DataError(f"{path} has more than {MAX_ROWS} rows: this is no table of clips")
        if fault:
            yield Row(line, {}, fault)
            continue
        found = {
            key: cells[place].strip() if place is not None and place < len(cells) else ""
            for key, place in places.items()
        }
        yield Row(line, found)
    if places is None:
        raise DataError(f"{path} is empty: its first line should name the columns")


Name = tuple[str, str]  # subset and uid of a clip
Fault = tuple[str, str]  # code and sentence of a finding


def usable_rows(
    path: Path,
    columns: Mapping[str, tuple[str, ...]] | tuple[str, ...],
    judge: Callable[[dict[str, str]], tuple[Name, Fault | None]],
    findings: list[Finding],
) -> Iterator[tuple[Name, dict[str, str]]]:
    """The rows of a table with one row for each clip, as far as they can be used.

    Args:
        path: of the table.
        columns: see `read_rows`.
        judge: the cells of a row -> which clip it is of, and what is wrong with it.
        findings: what is wrong with the rows that are left out is added to it.

    Yields:
        Clip and cells of every row that can be used; of two of the same clip the first.

    Raises:
        DataError: see `read_rows`.
    """
    seen = set()
    for row in read_rows(path, columns):
        if row.fault:
            name, fault = "", ("unreadable row", f"the row {row.fault}")
        else:
            clip, fault = judge(row.cells)
            name = "/".join(shown(part)[1:-1] for part in clip)
            if not fault and clip in seen:
                fault = "listed twice", f"clip {name} stands in the table twice: the first is kept"
        if fault:
            code, message = fault
            findings.append(Finding("left out", name, code, f"{path}, line {row.line}: {message}"))
        else:
            seen.add(clip)
            yield clip, row.cells


def absent(subset: str, clips: int, folder: Path) -> Finding:
    """Says that the files of a subset are not there."""
    message = f"no folder for: {subset} ({clips} clips) in {folder}"
    return Finding("noticed", subset, "subset absent", message)


def no_clips(root: Path, findings: Sequence[Finding], otherwise: str) -> DataError:
    """What to say of a folder without clips: the first reason why one was left out."""
    why = next((finding.message for finding in findings if finding.kind == "left out"), otherwise)
    return DataError(f"no clips in {root}: {why}")


def _places(path: Path, header: list[str], columns) -> dict[str, int | None]:
    """Which column holds what."""
    if isinstance(columns, tuple):
        if len(header) < len(columns):
            raise DataError(f"{path} should have the columns {', '.join(columns)}, in this order")
        return {key: place for place, key in enumerate(columns)}
    header = [cell.strip().lower() for cell in header]
    return {
        key: next((header.index(name) for name in names if name in header), None)
        for key, names in columns.items()
    }


def _parsed(path: Path) -> Iterator[tuple[int, list[str], str]]:
    """(number of the line, cells, fault) of every line that is not blank."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE)
                yield number, [], f"is longer than {MAX_LINE} bytes"
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
                cells = next(csv.reader([text]), [])
            except UnicodeDecodeError:
                yield number, [], "is not valid UTF-8"
                continue
            except csv.Error as fault:
                yield number, [], f"cannot be parsed ({str(fault)[:SHOWN]})"
                continue
            if any(cell.strip() for cell in cells):
                yield number, cells, ""


def has_columns(path: Path, names: Iterable[str]) -> bool:
    """Whether a file is a table that has these columns (small letters); never raises."""
    try:
        check_size(path, MAX_BYTES)
        _, cells, _ = next(_parsed(path), (0, [], ""))
    except (DataError, OSError):
        return False
    return set(names) <= {cell.strip().lower() for cell in cells}


def read_json(path: Path) -> Any:
    """The content of a small JSON file.

    Raises:
        DataError: missing, too big, or no JSON.
    """
    check_size(path, MAX_JSON)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError) as fault:
        reason = str(fault).splitlines()[0][:SHOWN]
        raise DataError(f"{path} cannot be read: it is no JSON file ({reason})") from fault


def ordered_classes(ids: Any, path: Path, first: int) -> tuple[str, ...]:
    """Class names by id, of a table name -> number whose first number is `first`.

    Raises:
        DataError: no such table, gaps or repetitions, too many, or the first is not background.
    """
    if not isinstance(ids, dict) or not all(type(number) is int for number in ids.values()):
        raise DataError(f"{path} cannot be read: it should map class names to whole numbers")
    names = sorted(ids, key=ids.__getitem__)
    if len(names) > MAX_CLASSES:
        raise DataError(f"{path}: {len(names)} classes, there can be {MAX_CLASSES} at most")
    if len(names) < 2 or [ids[name] for name in names] != list(range(first, first + len(names))):
        raise DataError(
            f"{path}: indices should run {first}, {first + 1}, {first + 2}, ... without gap or "
            "repetition"
        )
    if names[0] != "background":
        raise DataError(f"{path}: index {first} should be 'background', it is {names[0][:SHOWN]!r}")
    return tuple(names)


def check_size(path: Path, limit: int) -> None:
    """Raises DataError where there is no such file, or one that is too big to be what it says."""
    try:
        if not path.is_file():
            raise DataError(f"{path.name} missing in {path.parent}")
        if path.stat().st_size > limit:
            raise DataError(f"{path} is bigger than {limit // 2**20} MiB: this is no such table")
        with path.open("rb"):
            pass
    except OSError as fault:
        raise DataError(f"{path} cannot be read: {fault.strerror}") from fault


def fingerprint(layout: str, tables: Iterable[Path], clips: Iterable[RawClip]) -> str:
    """Hex digest of a layout's name, the bytes of its tables and the names of its clips' files."""
    digest = hashlib.sha256(layout.encode())
    for path in tables:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for clip in clips:
        told = [clip.name, clip.split, clip.seconds, clip.start, clip.label_encoding]
        told += [clip.foreground, clip.label_ids, clip.objects, *(s.position for s in clip.sounds)]
        told += [second for second, _ in clip.labels]
        told += [path.name for path in clip.files]
        digest.update("\0".join(map(str, told)).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
