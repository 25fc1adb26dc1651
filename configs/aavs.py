"""What the recipes of AAVS share: its network's and loss's keys, what trains, its phases.

Sizes and their meaning stand in aavs_jax/methods/aavs/config.py, those of the loss in
aavs_jax/methods/objectives/set_prediction_config.py.
"""

from ml_collections import ConfigDict

from aavs_jax.methods.aavs.config import PAPER, SMALL
from aavs_jax.methods.objectives.set_prediction_config import LossConfig
from configs import base
from configs.argument import parse_argument


def run(folder: str, small: bool) -> ConfigDict:
    """What all runs share, with the pretrained parts of AAVS."""
    config = base.base(folder, small)
    config.init.mask2former = ""  # a Mask2Former, or a whole AAVS to go on from
    config.init.vggish = ""  # the audio encoder
    return config


def stage(task: str, small: bool) -> ConfigDict:
    """A stage without its phases; arguments as in `base.stage`."""
    stage = base.stage("aavs", task, small)
    sizes = SMALL if small else PAPER[task]
    stage.model = base.keys(sizes)
    stage.loss = base.keys(LossConfig(grid=32 if small else 0))
    return stage


# The paper's two phases belong to its pretrained network: adapters around a frozen backbone first,
# adapters within it later. From scratch there is nothing to freeze.
small_phase = base.small_phase


# What trains in the paper's binary networks (S4, MS3, stage one of AVSS) ...
BACKBONE_ADAPTERS = r"backbone/.*_adapter/.*"
BINARY_TRAINS = (
    r"decoder/query_(positions|features)",
    r"(pixel_)?decoder/.*adapter/.*",
    r"decoder/class_predictor/.*",
    r"audio_proj/.*",
)
# ... and in its AVSS network.
SEMANTIC_TRAINS = (
    r"decoder/query_positions",
    r"(pixel_)?decoder/.*adapter/.*",
    r"decoder/class_predictor/.*",
    r"audio_proj/.*",
    r"decoder/(silent|sounding|uncertain)_embed",
)


def add_paper_phases(
    name: str, stage: ConfigDict, epochs: int, first: int, trains: tuple[str, ...], clip_norm: float
) -> None:
    """The paper's sub-phases: a without backbone adapters, b with them, from a's best.

    Args:
      name: of the stage.
      stage: gets the phases `a` and `b`.
      epochs: of both together.
      first: of them in a.
      trains: patterns of what trains in a; b adds the backbone's adapters.
      clip_norm: of the whole gradient; 0 for none.
    """
    a = base.phase(trains, "pretrained", first, 1e-3)
    a.zero = (BACKBONE_ADAPTERS,)
    b = base.phase((*trains, BACKBONE_ADAPTERS), f"{name}/a", epochs - first, 1e-4)
    b.fresh = (BACKBONE_ADAPTERS,)
    for each in (a, b):
        each.optimizer.clip_norm = clip_norm
    stage.best_over_phases = "all"
    base.add_phases(stage, a=a, b=b)


def binary_benchmark(argument: str, subsets: tuple[str, ...], seconds: int) -> ConfigDict:
    """A schedule of one stage, `localise`.

    Args:
      argument: of the config.
      subsets: those that are trained and scored on; (): all.
      seconds: of the longest clip; the small network takes one at a time.
    """
    folder, small = parse_argument(argument)
    config = run(folder, small)
    config.schedule = ("localise",)
    localise = stage("binary", small)
    localise.data.subsets = subsets
    if small:
        base.add_phases(localise, all=small_phase("nothing", 80))
    else:
        localise.data.seconds = seconds
        add_paper_phases("localise", localise, 60, 30, BINARY_TRAINS, 0.01)
    config.stages.localise = localise
    return config
