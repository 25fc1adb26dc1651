"""Command line: python -m aavs_jax.export runs/avss --out exported

Writes a network as a program of its own, which jax and numpy run; docs/predicting.md tells more.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from aavs_jax.errors import Parser, UserError
from data_pipelines.errors import DataError, lies_in, tidy_path

_COMMAND = "python -m aavs_jax.export"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 2 for a fault; 130 when interrupted."""
    # What Orbax says of a damaged checkpoint goes on for pages; the error says it in a sentence.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        _run(_parser().parse_args(arguments))
    except (UserError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: nothing was written", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_COMMAND,
        allow_abbrev=False,
        description="Writes a network, front end included, as a StableHLO program for CPU, GPU and "
        "TPU, with its weights and a loader that imports jax and numpy only.",
    )
    parser.add_argument(
        "weights",
        metavar="FOLDER[,FOLDER]",
        help="a run, of which both stages are taken, <run>/<stage>/<phase>, or a converted folder; "
        "of two the first says where it sounds and the second what it is",
    )
    parser.add_argument("--out", required=True, help="a new folder, or an earlier export")
    parser.add_argument("--method", help="of weights by a method of one's own, its module")
    return parser


def _run(options: argparse.Namespace) -> None:
    folders = [tidy_path(name.strip()) for name in options.weights.split(",") if name.strip()]
    if not 1 <= len(folders) <= 2:
        raise UserError(f"{options.weights!r}: give a folder, or two with a comma between them")
    out = tidy_path(options.out)
    if out.name in ("", "..") or any(lies_in(out, folder) for folder in folders):
        raise UserError(f"--out {options.out!r} is no new folder outside the weights: choose one")
    # Heavy imports wait until the flags are known to be right.
    from aavs_jax.prediction import exporting
    from aavs_jax.prediction.network import load
    from aavs_jax.run.progress import say

    exporting.check_flatbuffers()
    exporting.check_place(out)
    before = folders[0] if len(folders) == 2 else None
    network = load(folders[-1], before=before, method=options.method)
    say(f"writing {network.card.describe()} as a program")
    exporting.write(network, out)
    size = sum(path.stat().st_size for path in out.iterdir())
    say(f"wrote {out} ({size / 1e6:.1f} MB): {out / exporting.README} says how to load it")


if __name__ == "__main__":
    sys.exit(main())
