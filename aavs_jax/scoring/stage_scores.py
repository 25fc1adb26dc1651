"""Figures of a stage's network: every prior and sound, and the masks that are kept."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

from aavs_jax.inputs.batches import eval_batches, evaluations
from aavs_jax.methods.method import Method
from aavs_jax.report import presentation
from aavs_jax.run.progress import say
from aavs_jax.run.stopping import what_is_next
from aavs_jax.run.workdir import Workdir
from aavs_jax.scoring import one_pass
from aavs_jax.scoring.mask_folders import mask_writers
from aavs_jax.state.sharding import put_state
from data_pipelines.prepared.embeddings import Embeddings
from data_pipelines.prepared.source import ClipSource

Config = Mapping[str, Any]
Rows = list[dict[str, Any]]


def stage_figures(
    config: Config,
    stage_name: str,
    parameters: Mapping[str, Any],
    method: Method,
    sources: Mapping[str, ClipSource],
    heard: Mapping[str, Embeddings],
    workdir: Workdir,
    mesh: Mesh,
    **named: str,
) -> Rows:
    """Rows for every prior and sound on the test split; masks and rows of the other splits.

    Args:
      config: as in configs/base.py.
      stage_name: one of its stages.
      parameters: of the stage's network, by path.
      method: of the stage.
      sources: by split.
      heard: by split, what the network takes in place of log-mel examples; {} where it does not.
      workdir: of the run.
      mesh: of the devices.
      **named: goes into every row.
    """
    stage = config["stages"][stage_name]
    root = workdir.root
    parameters = put_state(parameters, mesh)
    protocols = one_pass.protocols(config)
    chosen = presentation.choose(sources.get("test"), config["eval"]["examples"])
    passes = evaluations(config, stage, sources)
    splits = " and ".join(dict.fromkeys(split for split, _, _ in passes))
    cached = config["data"]["cache"]
    say(
        f"[{stage_name}] scores: {len(passes)} passes over {splits}, one for each prior and sound"
        + (", val and train for their masks" if stage["writes_masks"] and len(sources) > 1 else "")
        + ("" if cached else "; each reads its clips again (--config.data.cache=true keeps them)")
    )
    rows: Rows = []
    again = f"the same command computes the scores of {stage_name} again; what was trained is kept"
    with what_is_next(again), mask_writers(root / stage_name) as masks:
        for split, prior, sound in passes:
            batches = eval_batches(
                config,
                stage,
                sources[split],
                root,
                mesh,
                prior=prior,
                sound=sound,
                embeddings=heard.get(split),
                nearest=one_pass.needs_nearest(stage["task"], protocols),
            )
            showcase = one_pass.Showcase(chosen if split == "test" else ())
            observers: list[Callable] = [showcase]
            with contextlib.ExitStack() as stack:
                if place := _place_of_masks(config, stage, split, prior, sound):
                    if (writer := masks(place, stage["task"])) is not None:
                        stack.callback(writer.close)
                        observers.append(writer)
                figures = one_pass.score(
                    method,
                    parameters,
                    batches,
                    mesh,
                    description=f"{stage_name} on {split}, sound {sound}, prior {prior}",
                    protocols=protocols,
                    observers=observers,
                )
            labels = {"stage": stage_name, "split": split, "sound": sound, "prior": prior}
            labels |= {"label_size": stage["data"]["label_size"], **named}
            rows += one_pass.to_rows(figures, stage["task"], sources[split].class_names, **labels)
            if split == "test":
                presentation.save(root / stage_name, sound, prior, showcase)
    return rows


def _place_of_masks(config: Config, stage: Config, split: str, prior: str, sound: str) -> str:
    """The folder's name for the masks of a pass; '' where none are written."""
    first = prior == stage["prior"]["evaluate"][0]
    handed_over = stage["writes_masks"] and first
    saved = config["eval"]["save_masks"] and split == "test"
    if sound != "right" or not (handed_over or saved):
        return ""
    return "masks" if first else f"masks-{prior}"
