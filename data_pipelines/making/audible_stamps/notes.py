"""What lies beside the clips: whose media they are, and which stamps are in which split."""

import gzip
import json
import re
from pathlib import Path

from data_pipelines.making.audible_stamps.media import PACKAGES, Media
from data_pipelines.making.audible_stamps.plan import CHANCES
from data_pipelines.making.audible_stamps.stamps import in_split

LICENCE_NAME = "LICENSE-MEDIA.md"
STAMPS_NAME = "stamps.json"
_UNKNOWN = "version not known"


def write(
    root: Path,
    places: tuple[Path, ...],
    media: Media,
    *,
    clips: int,
    size: int,
    seed: int,
    held_out: bool,
) -> None:
    """Writes LICENCE_NAME and STAMPS_NAME into the folder `root`; `places` as by `media.find`."""
    versions = {package: version(places, package) for package in PACKAGES}
    allowed = {split: in_split(media.stamps, split, held_out) for split in CHANCES.splits}
    stamps = [
        {
            "class": stamp.name,
            "picture": stamp.picture,
            "recording": stamp.recording,
            "splits": [split for split in CHANCES.splits if stamp in allowed[split]],
        }
        for stamp in media.stamps
    ]
    content = {
        "clips": clips,
        "size": size,
        "seed": seed,
        "held_out_stamps": held_out,
        "packages": versions,
        "stamps": stamps,
        "backgrounds": list(media.background_names),
        "missing": [stamp.picture for stamp in media.missing],
    }
    text = json.dumps(content, indent=1) + "\n"
    (root / STAMPS_NAME).write_text(text, encoding="utf-8")
    names = sorted({stamp.name for stamp in media.stamps})
    split = (
        f"Some stamps are met\nin the test split alone: `{STAMPS_NAME}` lists the splits of each."
        if held_out
        else "All stamps may be met\nin every split, but no composition is in two of them."
    )
    count = len(media.stamps)
    made = f"""The clips were composed by `python -m data_pipelines.make stamps`: {count} cut-out
photographs with their recordings, on {len(media.backgrounds)} photographs, in the unified layout of
AVSBench and with its class ids. {split}

Classes: {", ".join(names)}.
"""
    write_licence(root, places, made)


def version(places: tuple[Path, ...], package: str) -> str:
    """Version of a package by its Debian changelog."""
    for place in places:
        path = place / "doc" / package / "changelog.Debian.gz"
        try:
            with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
                found = re.match(r"\S+ \(([^)\s]+)\)", file.readline())
        except (OSError, EOFError):
            continue
        if found:
            return found[1]
    return _UNKNOWN


def write_licence(root: Path, places: tuple[Path, ...], made: str) -> None:
    """Writes LICENCE_NAME into the folder `root`; `made`, its end, says what was made of them."""
    packages = "\n".join(f"* {name} {version(places, name)}" for name in PACKAGES)
    text = f"""# Media of this data set

The pictures and recordings in this folder are derived from these packages of Debian and Ubuntu:

{packages}

They are part of Tux Paint (https://tuxpaint.org), copyright Bill Kendrick and contributors, and
under the GNU General Public License, version 2 (GPL-2): see `copyright` of each package in
`/usr/share/doc`, and `/usr/share/common-licenses/GPL-2`. Whoever passes this folder on does so
under that licence.

{made}"""
    (root / LICENCE_NAME).write_text(text, encoding="utf-8")
