"""Command line: python -m data_pipelines.audible_shapes --out=DIR [--show=sheet.png]."""

import argparse
import sys

from data_pipelines.audible_shapes import sheet, write
from data_pipelines.errors import DataError


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, 2 where the request cannot be met, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.audible_shapes",
        description="Makes the built-in data set Audible Shapes in AVSBench's unified layout.",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--clips", type=int, default=write.DEFAULT_CLIPS, metavar="N")
    parser.add_argument(
        "--size", type=int, default=write.DEFAULT_SIZE, metavar="PX", help="side of the frames"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--show", metavar="PNG", help="draw a contact sheet of some clips, too")
    options = parser.parse_args(arguments)
    numbers = {"clips": options.clips, "size": options.size, "seed": options.seed}
    try:
        write.make(options.out, **numbers)
        print(f"{options.clips} clips written to {options.out}")
        if options.show:
            sheet.save(options.show, **numbers)
            print(f"Contact sheet drawn to {options.show}")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped: nothing was written; the same command starts again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
