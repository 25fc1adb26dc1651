"""Scores of a stage's network: every prior and sound, and the masks that are kept."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from aavs_jax.inputs.batches import eval_batches, evaluations
from aavs_jax.plan.stage import MASKS, Stage
from aavs_jax.run.progress import say
from aavs_jax.run.stopping import what_is_next
from aavs_jax.scoring import one_pass, showcase
from aavs_jax.scoring.mask_writer import mask_writers
from aavs_jax.state.sharding import put_state

Rows = list[dict[str, Any]]


def stage_scores(stage: Stage, parameters: Mapping[str, Any], **named: str) -> Rows:
    """Rows for every prior and sound on the test split; masks and rows of the other splits.

    Args:
      stage: on its data.
      parameters: of its network, by path.
      **named: goes into every row.
    """
    keys = stage.keys
    predictor = one_pass.network(stage.method, put_state(parameters, stage.mesh))
    protocols = one_pass.protocols(stage.config)
    chosen = showcase.choose(stage.sources.get("test"), stage.config["eval"]["examples"])
    passes = evaluations(stage)
    _say_what_follows(stage, passes)
    rows: Rows = []
    again = f"the same command computes the scores of {stage.name} again; what was trained is kept"
    with what_is_next(again), mask_writers(stage.folder) as masks:
        for split, prior, sound in passes:
            nearest = one_pass.needs_nearest(stage.task.name, protocols)
            batches = eval_batches(stage, split, prior=prior, sound=sound, nearest=nearest)
            examples = showcase.Showcase(chosen if split == "test" else ())
            observers: list[Callable] = [examples]
            with contextlib.ExitStack() as stack:
                for kind, place in _places_of_masks(stage, split, prior, sound).items():
                    if (writer := masks(place, stage.task.name, kind)) is not None:
                        stack.callback(writer.close)
                        observers.append(writer)
                scores = one_pass.score(
                    predictor,
                    batches,
                    stage.mesh,
                    description=f"{stage.name} on {split}, sound {sound}, prior {prior}",
                    protocols=protocols,
                    observers=observers,
                )
            labels = {"stage": stage.name, "split": split, "sound": sound, "prior": prior}
            labels |= {"label_size": keys["data"]["label_size"], **named}
            names = stage.sources[split].class_names
            rows += one_pass.to_rows(scores, stage.task.name, names, **labels)
            if split == "test":
                showcase.save(stage.folder, sound, prior, examples)
    return rows


def _say_what_follows(stage: Stage, passes: list[tuple[str, str, str]]) -> None:
    splits = list(dict.fromkeys(split for split, _, _ in passes))
    for_masks = "" if stage.writes_for else " and ".join(s for s in splits if s != "test")
    cached = stage.config["data"]["cache"]
    passes_over = f"{len(passes)} pass{'es' * (len(passes) > 1)} over {' and '.join(splits)}"
    say(
        f"[{stage.name}] scores: {passes_over}, one for each prior and sound"
        + (f", {for_masks} for their masks" if for_masks else "")
        + ("" if cached else "; each reads its clips again (--config.data.cache=true keeps them)")
    )


def _places_of_masks(stage: Stage, split: str, prior: str, sound: str) -> dict[str, str]:
    """The folders' names for the masks of a pass, by their kind; none where none are written."""
    first = prior == stage.keys["prior"]["evaluate"][0]
    handed_over = stage.keys["writes_masks"] and first
    saved = stage.config["eval"]["save_masks"] and split == "test"
    if sound != "right" or not (handed_over or saved):
        return {}
    if not first:
        return {"hard": f"{MASKS['hard']}-{prior}"}
    soft = handed_over and stage.soft_is_wanted
    return {kind: place for kind, place in MASKS.items() if kind == "hard" or soft}
