"""Command line: python -m data_pipelines.make shapes|stamps|coco|vpo --out DIR: makes a data set.

Shapes and stamps come in AVSBench's unified layout, VPO in its own; `data_pipelines.prepare` and
the configs take them all. `coco` makes what `vpo` is made of.
"""

import argparse
import shlex
import sys
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.making.audible_shapes import write as shapes
from data_pipelines.making.audible_stamps import write as stamps
from data_pipelines.making.coco_of_stamps import write as coco
from data_pipelines.making.vpo import build as vpo
from data_pipelines.media import printable


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0; 3 where VPO left something out; 2 where the request cannot be met;
    130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        return options.make(options)
    except DataError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped: nothing was written; the same command starts again", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.make", description="Makes a data set."
    )
    kinds = parser.add_subparsers(required=True, metavar="shapes|stamps|coco|vpo")
    _add_shapes(kinds.add_parser("shapes", help="Audible Shapes, the built-in data set"))
    _add_stamps(kinds.add_parser("stamps", help="cut-out photographs with their recordings"))
    _add_coco(kinds.add_parser("coco", help="a COCO folder and recordings of stamps, for vpo"))
    _add_vpo(kinds.add_parser("vpo", help="VPO, of COCO and recordings sorted by class"))
    for kind in kinds.choices.values():
        kind.add_argument("--out", required=True, metavar="DIR", help="folder to make")
        kind.add_argument("--seed", type=int, default=0, metavar="S")
    return parser


def _add_drawn(parser: argparse.ArgumentParser, clips: int, size: int) -> None:
    parser.add_argument("--clips", type=int, default=clips, metavar="N")
    parser.add_argument("--size", type=int, default=size, metavar="PX", help="side of the frames")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; default: all cores")
    parser.add_argument("--show", metavar="PNG", help="draw a contact sheet of some clips, too")


def _add_shapes(parser: argparse.ArgumentParser) -> None:
    parser.description = "Makes the built-in data set Audible Shapes in AVSBench's unified layout."
    _add_drawn(parser, shapes.DEFAULT_CLIPS, shapes.DEFAULT_SIZE)
    parser.set_defaults(make=_make_shapes)


def _make_shapes(options: argparse.Namespace) -> int:
    shapes.make(
        options.out,
        clips=options.clips,
        size=options.size,
        seed=options.seed,
        workers=options.workers,
        show=options.show,
    )
    return _made(options)


def _add_stamps(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes a data set of cut-out photographs with their recordings, in AVSBench's unified "
        "layout, from the packages tuxpaint-stamps-default and tuxpaint-data."
    )
    _add_packages(parser)
    _add_drawn(parser, stamps.DEFAULT_CLIPS, stamps.DEFAULT_SIZE)
    parser.add_argument(
        "--held-out-stamps",
        action="store_true",
        help="where a class has several stamps, keep some for the test split alone",
    )
    parser.set_defaults(make=_make_stamps)


def _add_packages(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--packages",
        metavar="DIR",
        help="where both packages were unpacked with dpkg-deb -x, if they are not installed",
    )


def _make_stamps(options: argparse.Namespace) -> int:
    stamps.make(
        options.out,
        packages=options.packages,
        clips=options.clips,
        size=options.size,
        seed=options.seed,
        held_out=options.held_out_stamps,
        workers=options.workers,
        show=options.show,
    )
    return _made(options)


def _made(options: argparse.Namespace) -> int:
    print(f"{options.clips} clips written to {options.out}")
    if options.show:
        print(f"Contact sheet drawn to {options.show}")
    return 0


def _add_coco(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes of the media of `stamps` what `vpo` is made of: a COCO folder, DIR/coco, in most "
        "pictures of which only the side tells what sounds, and recordings by class, DIR/sounds."
    )
    _add_packages(parser)
    parser.add_argument("--images", type=int, default=coco.DEFAULT_IMAGES, metavar="N")
    parser.add_argument(
        "--size", type=int, default=coco.DEFAULT_SIZE, metavar="PX", help="side of the pictures"
    )
    parser.set_defaults(make=_make_coco)


def _make_coco(options: argparse.Namespace) -> int:
    out = coco.make(
        options.out,
        packages=options.packages,
        images=options.images,
        size=options.size,
        seed=options.seed,
    )
    print(f"{options.images} pictures and their recordings written to {options.out}")
    folders = [shlex.quote(str(out / name)) for name in ("coco", "sounds")]
    print(
        "Next: python -m data_pipelines.make vpo --coco {} --sounds {} --settings msmi "
        "--out DIR".format(*folders)
    )
    return 0


def _add_vpo(parser: argparse.ArgumentParser) -> None:
    parser.description = "Makes VPO-SS, VPO-MS and VPO-MSMI from COCO and recordings by class."
    parser.add_argument(
        "--coco",
        required=True,
        metavar="DIR",
        help="holds annotations/instances_*.json and train2017/, val2017/ or images/",
    )
    parser.add_argument(
        "--sounds",
        required=True,
        metavar="DIR",
        help="holds <class>/*.wav, .flac, .ogg, .mp4, .webm or .mkv",
    )
    everything = ",".join(vpo.SUBSETS)
    parser.add_argument("--settings", default=everything, metavar=everything)
    parser.add_argument("--max-images", type=int, metavar="N", help="pictures of a setting at most")
    parser.add_argument(
        "--val-share",
        type=float,
        default=vpo.DEFAULT_VAL_SHARE,
        metavar="X",
        help="share of recordings (and of pictures where COCO's own split is not there) for val",
    )
    parser.add_argument(
        "--people",
        metavar="JSON",
        help='who is what: {"<annotation id>": "male" | "female" | "baby"}; COCO only knows '
        "persons, none of whom sounds without it",
    )
    parser.add_argument("--follow-links", action="store_true", help="even out of the folders")
    parser.set_defaults(make=_make_vpo)


def _make_vpo(options: argparse.Namespace) -> int:
    report = vpo.build(
        Path(options.coco),
        Path(options.sounds),
        Path(options.out),
        settings=[name.strip() for name in options.settings.split(",") if name.strip()],
        seed=options.seed,
        max_images=options.max_images,
        val_share=options.val_share,
        people=Path(options.people) if options.people else None,
        follow_links=options.follow_links,
    )
    for line in (f"VPO written to {options.out}", *report.lines()):
        print(printable(line))
    return 0 if report.complete else 3


if __name__ == "__main__":
    sys.exit(main())
