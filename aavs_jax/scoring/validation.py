"""Scores on the validation split while a phase trains, by which its best checkpoint is chosen."""

import math
from collections.abc import Callable, Mapping

import jax

from aavs_jax.inputs.batches import eval_batches
from aavs_jax.methods.method import Inner
from aavs_jax.plan.stage import PhaseName, Stage
from aavs_jax.run.progress import say
from aavs_jax.scoring import metrics, one_pass
from aavs_jax.state.checkpoint import SCORE, PhaseCheckpoints
from aavs_jax.state.tree import below

Parameters = Mapping[str, jax.Array]


def validation(stage: Stage, name: PhaseName) -> Callable[[Parameters], dict[str, float]] | None:
    """A function: parameters by path -> scores, SCORE among them, by which they are chosen.

    SCORE is NaN, so that they cannot be the best, where a network within the stage's has lost more
    than its guard allows of what it had when the phase began.

    Args:
      stage: on its data.
      name: of the phase.

    Returns:
      None where the data have no validation split, or no labels in it.
    """
    if "val" not in stage.sources or not any(c.labelled for c in stage.sources["val"].clips):
        return None
    whole = _scores_of(stage, name)
    within = {
        part: (inner, _scores_of(stage.inside(part), name), _when_begun(stage, name, inner))
        for part, inner in stage.method.inner.items()
    }

    def validate(parameters: Parameters) -> dict[str, float]:
        found = whole(parameters)
        score = found[stage.task.score]
        for part, (inner, scores, begun) in within.items():
            own = scores(below(parameters, inner.prefix))
            found |= {f"{part} {key}": value for key, value in own.items()}
            now = own[stage.inside(part).task.score]
            if begun is not None and not now >= begun - inner.guard:
                say(
                    f"[{name}] {part} has {now:.3f}, and had {begun:.3f} before the phase: this "
                    f"checkpoint cannot be the best (loss.guard is {inner.guard:g})"
                )
                score = math.nan
        return found | {SCORE: score}

    return validate


def _scores_of(stage: Stage, name: PhaseName) -> Callable[[Parameters], dict[str, float]]:
    batches = eval_batches(stage, "val", prior=stage.keys["prior"]["evaluate"][0])
    names = metrics.PROTOCOLS[metrics.PROTOCOL].scores[stage.task.name]

    def scores(parameters: Parameters) -> dict[str, float]:
        found = one_pass.score(
            one_pass.network(stage.method, parameters),
            batches,
            stage.mesh,
            description=f"{name} validation",
        )[metrics.PROTOCOL]
        return {key: found[key] for key in names}

    return scores


def _when_begun(stage: Stage, name: PhaseName, inner: Inner) -> float | None:
    """The score of the checkpoint that a network within the stage's starts from; None without."""
    starts = PhaseName.starts(stage.phase(name)["start"]) or {}
    if (phase := starts.get(inner.prefix)) is None:
        return None
    if not (folder := stage.root / str(phase)).is_dir():  # deleted since the phase began
        say(f"[{name}] cannot be compared with {phase}, which is gone: loss.guard does nothing")
        return None
    with PhaseCheckpoints(folder, reading=True) as checkpoints:
        best = checkpoints.best()
    return None if best is None or math.isnan(best.score) else best.score
