"""A part that published files of a whole network lack, from a folder of its own."""

from pathlib import Path
from typing import Any

import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.methods.method import Pretrained
from aavs_jax.run.progress import say
from aavs_jax.weights import card


def beside(
    folder: Path, key: str, part: Pretrained, given: str = ""
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Parameters and sizes of a part for weights that have none.

    Args:
      folder: of the weights.
      key: of config.init that gives the part, also the name of a folder beside the weights.
      part: that is lacking, as published files of AAVS lack the audio encoder.
      given: where it is; '': in the folder beside.

    Raises:
      UserError: there is none, or it holds something else.
    """
    place = Path(given) if given else folder.absolute().parent / key
    if not given and not (place / card.FILE).exists():
        raise UserError(
            f"{folder} has no {part.what}, as {part.lacking} have none: make one of {part.file} "
            f"with {part.command}, and give it with --config.init.{key}=DIR or put it beside, at "
            f"{place}; the small network, --config=configs/s4.py without data, runs without"
        )
    parameters, found = card.weights(place)
    held = {path: value for path, value in parameters.items() if path.startswith(part.prefix)}
    if not held:
        raise UserError(
            f"{place} is {found.describe()}, and {folder} lacks an {part.what}: give one with "
            f"--config.init.{key}=DIR"
        )
    say(f"takes the {part.what} that {folder} lacks from {place}")
    name = part.sizes.rstrip(".")
    return held, {name: found.network[name]}
