"""Command line: python -m aavs_jax.benchmark [--sizes small,full] [--against torch] [--out DIR]

Time, processor time and memory of inference, training steps, the loss and the loader, beside plain
PyTorch where that is asked for. Every side computes in a process of its own, one at a time, in
turns, on all cores.
"""

import argparse
import importlib.util
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aavs_jax.benchmark import cases, page, results, scaling
from aavs_jax.benchmark.cases import Case
from aavs_jax.benchmark.measure import Bench
from aavs_jax.benchmark.worker import SIDES
from aavs_jax.errors import Parser, UserError
from aavs_jax.run.files import writing
from data_pipelines.errors import tidy_path

COMMAND = "python -m aavs_jax.benchmark"
ADVICE = "or choose another folder with --out"
AGAINST = {"torch": SIDES[1:], "torch_eager": SIDES[1:2]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 2 where the request cannot be met; 3 where a side could not be
    measured (torch.compile excepted) or the sides disagree; 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser().parse_args(arguments)
        return _run(options, shlex.join([*COMMAND.split(), *arguments]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped: {options.out} has the cases that were measured", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=COMMAND,
        allow_abbrev=False,
        description="Measures time and memory, beside plain PyTorch where asked; prints a table, "
        f"and writes {results.FILE} and the page {page.FILE}.",
    )
    add = parser.add_argument
    add("--sizes", type=_some_of(cases.SIZES), default=cases.SIZES, metavar="small,full")
    what = ",".join(cases.WHAT)
    add("--what", type=_some_of(cases.WHAT), default=cases.WHAT, metavar=what)
    add(
        "--against",
        choices=tuple(AGAINST),
        help="plain PyTorch, eager and by torch.compile (minutes for each case), or eager alone",
    )
    add("--out", default="runs/benchmark", metavar="DIR", help="default: %(default)s")
    add("--rounds", type=_number, default=5, metavar="N", help="of each side (5)")
    add("--frames", type=_numbers, default=(1, 5), metavar="1,5", help="of a clip")
    add("--phases", type=_some_of(cases.PHASES), default=cases.PHASES, metavar="a,b,all")
    add("--task", choices=cases.TASKS, default="binary", help="of the network (binary)")
    add("--dtype", choices=cases.DTYPES, default="float32", help="of matrix products (float32)")
    add("--frames-per-pass", type=_frames_per_pass, default=cases.AS_CONFIGURED, metavar="N")
    add(
        "--scaling",
        choices=scaling.known_sizes(),
        default="small",
        help="the network of the plots over frames, clips, pixels, queries, devices (small)",
    )
    return parser


def _some_of(known: Sequence[str]):
    def words(text: str) -> tuple[str, ...]:
        given = dict.fromkeys(word.strip() for word in text.split(",") if word.strip())
        if unknown := [word for word in given if word not in known]:
            raise argparse.ArgumentTypeError(
                f"{unknown[0]!r} is none of {', '.join(known)}: give some of them"
            )
        if not given:
            raise argparse.ArgumentTypeError(f"nothing is named: give some of {', '.join(known)}")
        return tuple(word for word in known if word in given)

    return words


def _number(text: str, least: int = 1) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} up")
    return number


def _frames_per_pass(text: str) -> int:
    return _number(text, 0)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_number(part) for part in text.split(",")))


def _run(options: argparse.Namespace, command: str) -> int:
    asked = cases.make(
        sizes=options.sizes,
        what=options.what,
        frames=options.frames,
        phases_wanted=options.phases,
        task=options.task,
        dtype=options.dtype,
        frames_per_pass=options.frames_per_pass,
    )
    if options.against:
        _check_torch()
    out = tidy_path(options.out)
    _check_out(out)
    bench = Bench((SIDES[0], *AGAINST.get(options.against, ())), options.rounds, _say)
    turns: list[tuple[str, Case]] = [("", case) for case in asked]
    if options.scaling != "none":
        turns += scaling.make(options.scaling, options.task, options.dtype)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        machine = Case("machine", "", dtype=options.dtype)
        bench.machine(machine)
        for number, (axis, case) in enumerate(turns, start=1):
            _say(f"({number}/{len(turns)}) {case.name}")
            weights = Path(folder) / f"{case.size}.safetensors" if options.against else None
            bench.case(case, weights, axis)
            # After each case, as all of them may take hours.
            results.write(out / results.FILE, bench.rows, ADVICE)
        # Twice, hours apart perhaps: other programs take their share of what can be done.
        bench.machine(machine)
    results.write(out / results.FILE, bench.rows, ADVICE)
    page.write(out / page.FILE, bench, command, ADVICE)
    print("\n".join([results.table(bench.rows), "", *results.shares(bench.rows), *bench.remarks]))
    print(f"\nwrote {out / results.FILE} and {out / page.FILE}")
    return 3 if bench.failed else 0


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _check_torch() -> None:
    for package in ("torch", "transformers"):
        # Found, not imported: what computes is the sides' own processes.
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"--against torch needs {package}, which is not installed: "
                'pip install -e ".[test]", or leave --against out'
            )


def _check_out(out: Path) -> None:
    """That can be written is seen now, not after hours."""
    with writing(out, ADVICE):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass


if __name__ == "__main__":
    sys.exit(main())
