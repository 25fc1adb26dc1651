"""The command: python -m aavs_jax.predict clip.mp4 [--weights=runs/avss] [--out=DIR].

It says what sounds in any clip, and where: masks, objects, a film with the masks over it, a page.
docs/predicting.md tells more.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from aavs_jax.errors import Parser, UserError
from aavs_jax.prediction import KINDS

EPILOG = "Exit code 0: all clips; 3: some could not be used; 2: none could, or a mistake."


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m aavs_jax.predict", description=__doc__.split("\n\n")[1])
    parser.epilog = EPILOG
    parser.add_argument(
        "clips",
        nargs="+",
        metavar="CLIP",
        help="a video, a picture or a folder of frames with a sound (in it, or beside it under the "
        "same name), a folder of these, or a .txt file with one of them in each line",
    )
    parser.add_argument(
        "--weights",
        metavar="FOLDER[,FOLDER]",
        help="a run, <run>/<stage>/<phase>, or what aavs_jax.convert wrote; of two the first says "
        "where it sounds and the second what it is (default: the newest run in runs/)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder to write; of several clips a folder of each in it (default: <clip>_out)",
    )
    parser.add_argument(
        "--fps",
        default="1",
        metavar="N|all",
        help="masks a second (1, as it was trained), or one for each frame; of a folder of frames "
        "the rate at which they were taken",
    )
    parser.add_argument(
        "--start", type=float, default=0.0, metavar="S", help="begin there, seconds"
    )
    parser.add_argument("--duration", type=float, metavar="S", help="predict so many seconds")
    sound = parser.add_mutually_exclusive_group()
    sound.add_argument("--sound", metavar="FILE", help="what is heard in place of the clip's sound")
    sound.add_argument("--silence", action="store_true", help="nothing is heard")
    parser.add_argument(
        "--only", metavar="KINDS", help=f"what to write, of {','.join(KINDS)} (default: all)"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of matrix products (default: as trained)"
    )
    parser.add_argument(
        "--batch-frames",
        type=int,
        default=0,
        metavar="N",
        help="frames computed at once, by networks that see each frame by itself",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 3 where some clips were left out; 2 for a fault; 130 on Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names in any alphabet
    from data_pipelines.errors import DataError

    try:
        flags = _parser().parse_args(arguments)
        flags.given = sys.argv[1:] if arguments is None else list(arguments)
        return _run(flags)
    except (UserError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: of the clip in work nothing was written", file=sys.stderr)
        return 130


def _run(flags: argparse.Namespace) -> int:
    kinds = _kinds(flags.only)
    if flags.batch_frames < 0:
        raise UserError(f"--batch-frames={flags.batch_frames}: give 1 or more")
    # Heavy imports wait until the flags are known to be right.
    import jax

    from aavs_jax.prediction import outputs, sources
    from aavs_jax.prediction.clip_folder import Asked, write_clip
    from aavs_jax.prediction.network import load
    from aavs_jax.prediction.stream import Span
    from aavs_jax.run.progress import say
    from aavs_jax.weights.keeping import newest_run
    from data_pipelines.errors import DataError

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", os.path.abspath("runs/compilation_cache"))
    span = Span(_fps(flags.fps), flags.start, flags.duration)
    clips = sources.find(
        flags.clips, Path(flags.sound) if flags.sound else None, silent=flags.silence
    )
    several = len(clips) > 1 or len(flags.clips) > 1
    out = Path(flags.out or (f"{clips[0].name}_out" if not several else "predictions"))
    folders = [out / clip.name if several else out for clip in clips]
    for folder in folders:
        outputs.check_free(folder)
    weights = flags.weights or str(newest_run(Path("runs")))
    names = [name.strip() for name in weights.split(",") if name.strip()]
    if not 1 <= len(names) <= 2:
        raise UserError(f"--weights={weights}: give a folder, or two with a comma between them")
    network = load(names[-1], before=names[0] if len(names) == 2 else None, dtype=flags.dtype)
    say(f"{', then '.join(each.card.describe() for each in network.chain)}, from {weights}")
    command = shlex.join(["python", "-m", "aavs_jax.predict", *flags.given])
    facts = (("command", command), ("weights", weights))
    asked = Asked(span, kinds, flags.batch_frames, facts)
    left_out = 0
    for clip, folder in zip(clips, folders, strict=True):
        try:
            summary = write_clip(network, clip, folder, asked)
        except (UserError, DataError) as error:
            if not several:
                raise
            left_out += 1
            print(f"error: {error}", file=sys.stderr, flush=True)
            continue
        found = ", ".join(summary["found"]) or "nothing"
        show = folder / ("index.html" if "page" in kinds else "")
        speed = summary["frames_per_second"]
        pace = f" at {speed:g} a second" if speed else ""
        say(f"{clip.name}: {summary['masks']} masks{pace}; found: {found}; {show}")
        for note in summary["notes"]:
            say(f"  {note}")
    if left_out:
        print(f"{left_out} of {len(clips)} clips could not be used", file=sys.stderr)
    return 0 if not left_out else 2 if left_out == len(clips) else 3


def _kinds(only: str | None) -> tuple[str, ...]:
    if only is None:
        return KINDS
    kinds = tuple(name.strip() for name in only.split(",") if name.strip())
    if wrong := [kind for kind in kinds if kind not in KINDS] or (not kinds and [only]):
        raise UserError(f"--only={only}: {wrong[0]!r} is none of {', '.join(KINDS)}")
    return kinds


def _fps(text: str) -> float | str:
    if text == "all":
        return text
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--fps={text}: give a number, such as 1 or 4, or all") from None


if __name__ == "__main__":
    sys.exit(main())
