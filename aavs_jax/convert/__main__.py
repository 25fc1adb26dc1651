"""Command line: python -m aavs_jax.convert SOURCE [SOURCE ...] --out OUT

Recognises weights by the names in them, accounts for every tensor, and writes a folder of weights,
or the layout of another tool. docs/weights.md tells more.
"""

import argparse
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from aavs_jax.convert import accounting, engine, exporting, files, fitting, importing, next_commands
from aavs_jax.convert.importing import Source, Weights
from aavs_jax.convert.windows import resized
from aavs_jax.errors import Parser, UserError
from aavs_jax.run.progress import say
from aavs_jax.state.parameter_folders import PARAMETERS
from aavs_jax.weights import card as cards
from data_pipelines.errors import lies_in, reason, remedy, tidy_path

_SOURCES = (
    "a file, a folder with one, a folder of weights, or <run>/<stage>/<phase>; several are merged"
)
_TO = (
    "orbax: a folder of weights for training and evaluation (the default); huggingface: a folder "
    "for transformers; safetensors: our own names in one file; origin: as it came; the others: a "
    ".pth under the names of its authors, and the audio encoder beside it"
)
_REPORT = "print what became of each tensor; with a file, which must be new, as JSON into it"
_ALLOW = (
    "regular expressions of names that may be left over, missing, left behind or not finite; each "
    "has to match one"
)
_FIT = (
    "make a whole network of AAVS; what the sources lack is initialised at random and named in the "
    "card"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 2 for a fault; 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names in any alphabet, on any terminal
    # What Orbax says of a full disk goes on for pages; the error says it in a sentence.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        _run(_parser().parse_args(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print("error: out of memory: give three times the size of the file", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: nothing was written", file=sys.stderr)
        return 130
    except OSError as error:
        what = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        # Who may not read something is not helped by what writing needs.
        denied = isinstance(error, PermissionError)
        advice = "check the path and its permissions" if denied else remedy(error)
        print(f"error: {what}{reason(error)}: {advice}", file=sys.stderr)
        return 2
    return 0


def _hook(raised: Any) -> None:
    """After a write has failed TensorStore tells of the others, when nobody listens any more."""
    if "Event loop is closed" not in str(raised.exc_value):
        sys.__unraisablehook__(raised)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m aavs_jax.convert",
        allow_abbrev=False,
        description="Converts weights: of Mask2Former and Swin (transformers, timm, Microsoft), "
        "AAVS and VGGish (PyTorch), and our own, in any direction. Nothing in a file is executed. "
        "Exit code 2: a fault, in one sentence, and nothing half-written.",
    )
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help=_SOURCES)
    add("--out", required=True, help="what to write; must be new")
    add("--to", choices=exporting.TARGETS, default="orbax", help=_TO)
    add("--report", nargs="?", const="", metavar="FILE.json", help=_REPORT)
    add("--allow", nargs="+", action="extend", default=[], metavar="PATTERN", help=_ALLOW)
    add("--window", type=int, help="resize a Swin's position tables to this window")
    add("--fit", choices=tuple(fitting.TASKS), help=_FIT)
    add("--seed", type=int, help="of --fit (default 0)")
    return parser


def _run(options: argparse.Namespace) -> None:
    out, paths = tidy_path(options.out), [tidy_path(source) for source in options.sources]
    _check_options(options, out, paths)
    sources = [importing.open_source(path) for path in paths]
    for source in sources:
        say(accounting.recognised(source))
    fitting.check_goes_together([source.card.kind for source in sources], bool(options.fit))
    if len(sources) == 1 and not options.fit:
        exporting.check_target(options.to, sources[0].card)
    origin = importing.origin_of(sources, _request(options))
    if options.to == "orbax" and options.report is None and _holds(out, sources, origin):
        say(f"{out} is there already, made of the same in the same way: nothing to do")
        return
    _check_is_new(out, folder=options.to in (*exporting.FOLDERS, "origin"))

    weights = _converted(options, sources, origin)
    exporting.check_target(options.to, weights.card)
    makers, written = exporting.makers(out, weights, options.to, options.allow)
    for path in makers:
        _check_is_new(path, folder=exporting.is_folder(options.to, weights.card))
    if options.report:
        text = accounting.as_json(sources, weights.card, weights.fates, written)
        # Before the others, so that what cannot be written shows at once.
        makers = {Path(options.report): lambda path: path.write_text(text), **makers}
    elif options.report is not None:
        for fates in filter(None, (weights.fates, written)):
            say(accounting.table(fates) + "\n")
    files.write_all(makers)
    for line in accounting.summary(weights, written):
        say(line)
    say(f"wrote       {' and '.join(map(str, makers))}")
    if options.to == "orbax":
        for line in next_commands.what_next(weights, out):
            say(line)


def _converted(
    options: argparse.Namespace, sources: Sequence[Source], origin: Mapping[str, Any]
) -> Weights:
    """The sources read, and made what was asked for."""
    known = set().union(*map(importing.names_in, sources))
    parts = [importing.read(source, options.allow) for source in sources]
    _check_allowed(options.allow, known.union(*(part.parameters for part in parts)))
    weights = fitting.merged(parts, options.sources)
    if options.window is not None:
        weights, done = resized(weights, options.window)
        for line in done:
            say(line)
    if options.fit:
        weights = fitting.fitted(weights, options.fit, options.seed or 0)
    return dataclasses.replace(weights, card=dataclasses.replace(weights.card, origin=dict(origin)))


def _request(options: argparse.Namespace) -> dict[str, Any]:
    """What was asked for that decides what comes out, for the card."""
    request: dict[str, Any] = {}
    if options.window is not None:
        request["window"] = options.window
    if options.fit:
        request["fit"] = {"task": options.fit, "seed": options.seed or 0}
    if options.allow:
        request["allow"] = sorted(set(options.allow))
    return request


def _check_options(options: argparse.Namespace, out: Path, sources: Sequence[Path]) -> None:
    """Asked before minutes of work, not after them."""
    if not options.out or out.name in ("", ".."):
        raise UserError(f"--out {options.out!r} is no name for something new: give one")
    for path in (out, *sources):
        try:
            os.fsencode(os.path.abspath(path)).decode()
        except UnicodeDecodeError:
            raise UserError(
                f"the name {path} is no text in UTF-8, which the libraries used here need: give "
                "it another"
            ) from None
    for source in sources:
        if os.path.isdir(source) and lies_in(out, source):
            raise UserError(f"--out {out} is inside the source {source}: choose a place elsewhere")
    engine.allowance(options.allow)
    if options.seed is not None and (not options.fit or options.seed < 0):
        raise UserError(f"--seed {options.seed} is to be 0 or more, and goes with --fit")
    if options.report:
        file = Path(options.report)
        # A source that stands behind --report would be taken for its file.
        if file.suffix != ".json" or not file.parent.is_dir():
            raise UserError(
                f"--report {file} is no name of a .json file in a folder that is there: give one"
            )
        if lies_in(file, out):
            raise UserError(f"--report {file} is at --out {out} or inside it: choose another name")
        _check_is_new(file, folder=False)


def _check_allowed(patterns: Sequence[str], names: Collection[str]) -> None:
    """A pattern that matches nothing is a misspelt one."""
    for pattern in patterns:
        if not engine.allowance([pattern])(*names):
            raise UserError(
                f"--allow {pattern!r} matches none of the {len(names)} names of tensors and "
                "parameters: correct it, or leave it out"
            )


def _holds(out: Path, sources: Sequence[Source], origin: Mapping[str, Any]) -> bool:
    """Whether a folder of weights was made by such a command of the same files."""
    there = (out / cards.FILE).exists() and (out / PARAMETERS).is_dir()
    if not there or any(source.state is None for source in sources):
        return False
    return cards.read(out).origin == json.loads(json.dumps(origin))


def _check_is_new(path: Path, *, folder: bool) -> None:
    """Nothing may be there, but for an empty folder if a folder is to be made."""
    empty = folder and not path.is_symlink() and path.is_dir() and not any(path.iterdir())
    if os.path.lexists(path) and not empty:
        raise UserError(
            f"{path} is there already and nothing is overwritten: choose another name, or delete it"
        )


if __name__ == "__main__":
    sys.unraisablehook = _hook
    sys.exit(main())
