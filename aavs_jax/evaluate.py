"""Figures of a trained stage: every prior and sound, and the masks it hands over."""

import contextlib
import shutil
from collections.abc import Callable
from typing import Any

import jax

from aavs_jax import presentation, scoring
from aavs_jax.batches import eval_batches, evaluations
from aavs_jax.logging_writer import writing
from aavs_jax.mask_folders import MaskWriter
from aavs_jax.progress import say
from aavs_jax.sharding import everyone_is_here, put_state


def stage_figures(
    config, stage_name, parameters, method, sources, heard, workdir, mesh
) -> list[dict[str, Any]]:
    """Rows for every prior and sound on the test split; masks and rows of the other splits."""
    stage = config["stages"][stage_name]
    root = workdir.root
    parameters = put_state(parameters, mesh)
    masks = root / stage_name / "masks"
    partial = masks.with_name("masks.partial")
    writes = stage["writes_masks"] and not masks.exists()
    if jax.process_index() == 0:
        shutil.rmtree(partial, ignore_errors=True)
    everyone_is_here(f"{stage_name} masks begin")
    chosen = presentation.choose(sources.get("test"), config["eval"]["examples"])
    rows = []
    for split, prior, sound in evaluations(config, stage, sources):
        kind = {"prior": prior, "sound": sound, "embeddings": heard.get(split)}
        batches = eval_batches(config, stage, sources[split], root, mesh, **kind)
        showcase = scoring.Showcase(chosen if split == "test" else ())
        observers: list[Callable] = [showcase]
        with contextlib.ExitStack() as stack:
            if writes and sound == "right" and prior == stage["prior"]["evaluate"][0]:
                writer = MaskWriter(partial)
                stack.callback(writer.close)
                observers.append(writer)
            figures = scoring.score(
                method,
                parameters,
                batches,
                mesh,
                description=f"{stage_name} on {split}, sound {sound}, prior {prior}",
                observers=observers,
            )
        labels = {"stage": stage_name, "split": split, "sound": sound, "prior": prior}
        rows += scoring.to_rows(figures, stage["task"], sources[split].class_names, **labels)
        if split == "test":
            presentation.save(root / stage_name, sound, prior, showcase)
    if writes:
        everyone_is_here(f"{stage_name} masks written")
        if jax.process_index() == 0:
            with writing(masks):
                partial.rename(masks)
        everyone_is_here(f"{stage_name} masks in place")
        say(f"[{stage_name}] hands over its masks: {masks}")
    return rows
