"""Asks the sides for one round after the other, in turns, and makes rows of their answers."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from aavs_jax.benchmark import results, worker
from aavs_jax.benchmark.cases import Case
from aavs_jax.benchmark.results import OURS, Measured, Row
from aavs_jax.benchmark.worker import Failure

UNSTEADY = 1.5  # slowest by fastest round
COMPILED = "torch_compile"  # which fails on some machines, and is then left out
Say = Callable[[str], None]
# Of float32 outputs, relative to the largest: the orders of summing differ, and at zero a logit's
# sign, which decides what a query looks at.
AGREE = {"float32": 1e-3, "tf32": 3e-2, "bfloat16": 0.3}
FLIPPED = 10.0  # times that, of the few frames in which a threshold was met to the last bit


class Bench:
    """Rows so far, and what went wrong."""

    def __init__(self, sides: Sequence[str], rounds: int, say: Say):
        """With so many rounds of each side; `say` is told what goes on."""
        self.sides, self.rounds, self.say = tuple(sides), rounds, say
        self.rows: list[Row] = []
        self.remarks: list[str] = []
        self.intensities: dict[str, float] = {}  # case's name -> FLOP per byte
        self.device = ""
        self.failed = False  # whether a side could not be measured, or other things were computed

    def machine(self, case: Case) -> None:
        """Measures a large matrix product and a large copy; once more: keeps what is faster."""
        for side in self.sides[:2]:  # compiled PyTorch calls the same library
            for measured in self._in_turns(case, (side,), None, rounds=1):
                self.rows = results.with_faster(self.rows, results.machine_rows(measured))

    def case(self, case: Case, weights: Path | None = None, axis: str = "") -> None:
        """Measures a case by all sides that can do it.

        Args:
          case: what to do.
          weights: of all sides, a file that the first who needs it makes; None: each its own.
          axis: of the scaling, see `results.rows`.
        """
        sides = self.sides
        if case.what == "loader" or axis:
            sides, weights = (OURS,), None
        if case.what == "loss":
            # No network, and transformers' matching goes by way of the host: nothing to compile.
            sides, weights = sides[:2], None
        if weights and not weights.exists():
            self._write_weights(case, weights)
        measured = self._in_turns(case, sides, weights, rounds=self.rounds)
        flops = max((m.told.get("flops", 0.0) for m in measured), default=0.0)
        ours = next((each for each in measured if each.side == OURS), None)
        for each in measured:
            started = each.told["started"]
            note = (
                f"{each.side} started in {started['seconds']:.1f} s with at most "
                f"{started['bytes'] / 1e6:,.0f} MB"
            )
            if ours and each is not ours:
                same, words = agreement(ours, each)
                note += f"; {words}"
                if not same:
                    self.failed = True
                    self.remark(f"{case.name}: {each.side} does not compute the same: {words}")
            self.rows += results.rows(each, flops, note, axis)
        if ours:
            self.device = ours.told.get("device", self.device)
            self.intensities[case.name] = ours.told.get("intensity", 0.0)
        unsteady = [each.side for each in measured if _is_unsteady(each)]
        if unsteady and not axis:
            self.remark(
                f"{case.name}: the slowest round of {' and of '.join(unsteady)} took more than "
                f"{UNSTEADY} times the fastest, as where something else computes on the machine: "
                "measure again when it is idle"
            )

    def remark(self, sentence: str) -> None:
        """Keeps a sentence for the table, and says it."""
        self.remarks.append(sentence)
        self.say(sentence)

    def _write_weights(self, case: Case, weights: Path) -> None:
        self.say(f"[{case.size}, {case.task}] the same weights for all sides")
        try:
            with worker.opened("weights", case, weights):
                pass
        except Failure as failure:
            weights.unlink(missing_ok=True)
            self.remark(f"{case.name}: there are no common weights: {failure}")
            self.failed = True

    def _in_turns(
        self, case: Case, sides: Sequence[str], weights: Path | None, *, rounds: int
    ) -> list[Measured]:
        """All sides are made ready, and then one computes at a time, a round each."""
        found: dict[str, list[dict[str, float]]] = {}
        told: dict[str, dict] = {}
        if weights and not weights.exists():
            weights = None
        with contextlib.ExitStack() as stack:
            ready = {}
            for side in sides:
                self.say(f"[{case.name}] {side} is made ready")
                with self._failing(case, side):
                    ready[side] = stack.enter_context(worker.opened(side, case, weights))
            for number in range(rounds):
                # In the other order every second time, so that none is always the first.
                for side in list(ready)[:: -1 if number % 2 else 1]:
                    with self._failing(case, side, ready):
                        found.setdefault(side, []).append(ready[side].round())
            for side in list(ready):
                with self._failing(case, side, ready):
                    told[side] = ready[side].told()
                    told[side]["outputs"] = ready[side].outputs()
        return [Measured(case, side, found[side], told[side]) for side in ready]

    @contextlib.contextmanager
    def _failing(self, case: Case, side: str, ready: dict | None = None):
        """A side that fails is remarked, and has no part any more."""
        try:
            yield
        except Failure as failure:
            self.remark(f"{case.name}: {side} could not be measured: {failure}")
            self.failed |= side != COMPILED
            if ready:
                ready.pop(side)


def agreement(ours: Measured, theirs: Measured) -> tuple[bool, str]:
    """Whether two sides did the same, and what is known of it."""
    if outputs := ours.told["outputs"]:
        errors = {
            name: relative_errors(array, theirs.told["outputs"][name])
            for name, array in outputs.items()
        }
        words = " and ".join(
            f"{key.replace('_', ' ')} {np.median(found):.0e} (at most {found.max():.0e})"
            for key, found in errors.items()
        )
        # Attention masks are logits above a threshold: where one lies on it, the last bit of a
        # number decides, and that frame's outputs differ by more than rounding. Few frames do.
        limit = AGREE[ours.case.dtype]
        agree = all(np.median(e) < limit and e.max() < FLIPPED * limit for e in errors.values())
        return agree, f"relative error of {words}"
    losses = [side.told["loss"] for side in (ours, theirs)]
    counts = [side.told.get("trained") for side in (ours, theirs)]
    words = f"the loss is {losses[1]:.4g}, and {losses[0]:.4g} of {OURS} at other random points"
    if counts[0] is not None:
        words += f"; {counts[1]:,} numbers train, {counts[0]:,} of {OURS}"
    # Points are drawn at random: a few percent are to be expected.
    return counts[0] == counts[1] and abs(losses[0] / losses[1] - 1) < 0.1, words


def _is_unsteady(measured: Measured) -> bool:
    seconds = [each["seconds"] for each in measured.rounds]
    return max(seconds) > UNSTEADY * min(seconds)


def relative_errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Of each frame the largest difference by the largest value of all frames, float [N].

    Infinite where shapes differ or it is no number.
    """
    if ours.shape != theirs.shape:
        return np.full(1, np.inf)
    frames = np.abs(ours - theirs).reshape(len(ours), -1).max(axis=1)
    errors = frames / max(np.abs(theirs).max(), 1e-30)
    return np.where(np.isfinite(errors), errors, np.inf)
