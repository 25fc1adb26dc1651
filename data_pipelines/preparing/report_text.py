"""The report of a data folder as text for people."""

from collections import Counter
from typing import Any

from data_pipelines.preparing.folder_report import KINDS

SHOWN = {"left out": 5, "repaired": 3, "noticed": 3}  # findings of a kind that are repeated
SHOWN_CLASSES = 8
SHOWN_DUPLICATES = 3


def text(report: dict[str, Any], details: str) -> str:
    """The report in some forty lines at most.

    Args:
        report: by `folder_report.gather`.
        details: where all of it is, for lists that are cut.
    """
    blocks = [
        [f"{report['folder']}: {report['layout']}"],
        table_lines(report),
        _class_lines(report),
        [line for kind in KINDS for line in _finding_lines(report, kind, details)],
        _duplicate_lines(report, details),
        _count_lines(report),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def completeness(row: dict[str, Any]) -> str:
    """Of a row of `subsets`, beside the published count."""
    if row["published"] is None:
        return ""
    missing = row["published"] - row["clips"]
    if missing == 0:
        return "complete"
    return f"{missing} missing" if missing > 0 else f"{-missing} more"


def table_lines(report: dict[str, Any]) -> list[str]:
    columns = ("subset", "split", "clips", "published", "frames", "labelled", "left_out")
    rows = [[str("" if row[c] is None else row[c]) for c in columns] for row in report["subsets"]]
    sums = [sum(row[c] for row in report["subsets"]) for c in ("clips", "frames", "labelled")]
    total = ["all", "", str(sums[0]), "", str(sums[1]), str(sums[2]), ""]
    total[-1] = str(sum(row["left_out"] for row in report["subsets"]))
    head = [column.replace("_", " ") for column in columns]
    cells = [head, *rows, total]
    ends = ["", *map(completeness, report["subsets"]), ""]
    known = [i for i in range(len(columns)) if i != 3 or any(row[3] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return [
        "  ".join(
            [line[i].ljust(widths[i]) if i < 2 else line[i].rjust(widths[i]) for i in known] + [end]
        ).rstrip()
        for line, end in zip(cells, ends, strict=True)
    ]


def _class_lines(report: dict[str, Any]) -> list[str]:
    seen = sorted((c for c in report["classes"] if c["pixels"]), key=lambda c: -c["pixels"])
    ignored = bool(report["ignored_pixels"])
    if not seen:
        return ["no label tells classes"] if report["label_maps"] else ["no labels"]
    shares = [f"{c['name']} {c['share']:.1%}" for c in seen[:SHOWN_CLASSES]]
    more = f", {len(seen) - SHOWN_CLASSES} more" if len(seen) > SHOWN_CLASSES else ""
    never = len(report["classes"]) - len(seen)
    return [
        f"classes by share of the label pixels: {', '.join(shares)}{more}"
        + (f"; {never} of {len(report['classes'])} in no label" if never else "")
        + (f"; {report['ignored_share']:.1%} of the pixels are ignored" * ignored)
    ]


def _finding_lines(report: dict[str, Any], kind: str, details: str) -> list[str]:
    mine = [f for f in report["findings"] if f["kind"] == kind]
    if not mine:
        return []
    counts = ", ".join(f"{code} {number}" for code, number in report["counts"][kind].items())
    shown = mine[: SHOWN[kind]]
    lines = [f"{kind}: {counts}"]
    for finding in shown:
        clip, message = finding["clip"], finding["message"]
        lines.append(f"  {message}" if not clip or clip in message else f"  {clip}: {message}")
    return lines + _more(len(mine) - len(shown), details)


def _duplicate_lines(report: dict[str, Any], details: str) -> list[str]:
    found = report["duplicates"]
    if not found:
        return []
    kinds = Counter(d["what"] for d in found)
    lines = [
        "in more than one split: " + ", ".join(f"the same {w} {n} times" for w, n in kinds.items())
    ]
    for duplicate in found[:SHOWN_DUPLICATES]:
        names = duplicate["clips"]
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        lines.append(f"  {duplicate['what']}: {', '.join(names[:4])}{more}")
    return lines + _more(len(found) - SHOWN_DUPLICATES, details)


def _count_lines(report: dict[str, Any]) -> list[str]:
    clips = report["clips"]
    lines = [
        f"empty masks: {report['empty_masks']} of {report['label_maps']} label maps",
        f"seconds without sound: {report['silent_seconds']} of {report['seconds']}",
        f"clips: {clips['usable']} usable ({clips['repaired']} of them repaired), "
        f"{clips['left_out']} left out",
    ]
    if report["written"]:
        lines.append(f"written: {in_bytes(report['written']['bytes'])}")
    return lines


def _more(count: int, details: str) -> list[str]:
    return [f"  ... and {count} more, see {details}"] if count > 0 else []


def in_bytes(count: int) -> str:
    """1234567 -> '1.2 MB'."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
