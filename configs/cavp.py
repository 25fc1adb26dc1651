"""CAVP: pixels under the right and under a wrong sound, kept apart by a contrastive loss.

    python -m aavs_jax.main --config=configs/cavp.py                      small network, built-in
    python -m aavs_jax.main --config=configs/cavp.py:/data/avsbench       AVSBench-semantic
    python -m aavs_jax.main --config=configs/cavp.py:/data/avsbench,s4    or ms3: AVSBench-object
    python -m aavs_jax.main --config=configs/cavp.py:/data/vpo,vpo_ss     or vpo_ms, vpo_msmi
    python -m aavs_jax.main --config=configs/cavp.py:/data/mine,avss,small

Stereo sound is --config.stages.STAGE.model.audio.channels=2, where STAGE is `localise` of s4 and
ms3 and `understand` of all others. The recipe is that of the public code, number for number, on one
device where that had two. It starts from published weights, of which
`python -m aavs_jax.convert FILE --out DIR` makes folders: --config.init.backbone=DIR (a deep-stem
ResNet-50, of VPO ResNet-101) and --config.init.vggish=DIR (vggish-10086976.pth of torchvggish).
--config.init.backbone takes a checkpoint of CAVP's authors, too. Of VPO the sound encoder, a
ResNet-18, begins at random.

Published, mIoU / F of the protocol cavp (--config.eval.protocols=cavp), pixels of the whole set,
ResNet-50, 224 pixels: S4 89.43 / 94.50, MS3 72.79 / 83.05, AVSS 44.70 / 57.76. Of VPO an early
version, FDR / mIoU / F1, ResNet-101: VPO-SS 19.47 / 66.26 / 77.34, VPO-MS 15.72 / 62.91 / 75.41.

The small network on built-in data, with the right sound, another clip's and silence: mIoU 0.78,
0.12 and 0.14, in eight minutes of 2 cores.

Where the public code does what the paper cannot mean, --config.as_published=True follows it:
docs/neighbours.md.
"""

from ml_collections import ConfigDict

from aavs_jax.methods.cavp.config import AVSBENCH, SMALL, VPO, CAVPLoss
from configs import base
from configs.argument import parse_recipe

VPO_RECIPES = ("vpo_ss", "vpo_ms", "vpo_msmi")
RECIPES = ("avss", "s4", "ms3", *VPO_RECIPES)
SUBSETS = {"s4": ("v1s",), "ms3": ("v1m",), "avss": ()} | {name: (name,) for name in VPO_RECIPES}
EPOCHS = {"s4": 60, "ms3": 60}  # of the others 80


def get_config(argument: str = ""):
    """See configs/argument.py; RECIPES has the recipes."""
    folder, recipe, small = parse_recipe(argument, RECIPES)
    config = base.base(folder, small)
    config.init.backbone = ""  # a deep-stem ResNet, or a whole CAVP to go on from
    config.init.vggish = ""  # the sound encoder of 1 s
    name = "localise" if recipe in ("s4", "ms3") else "understand"
    config.schedule = (name,)
    config.stages[name] = stage(recipe, small)
    if small:
        base.add_phases(config.stages[name], all=base.small_phase("nothing", 48))
    else:
        config.seed = 666
        base.add_phases(config.stages[name], all=paper_phase(recipe))
    return config


def stage(recipe: str, small: bool) -> ConfigDict:
    """A stage without its phases.

    Args:
      recipe: of RECIPES: which data, and which of the two networks.
      small: the small network.
    """
    task = "binary" if recipe in ("s4", "ms3") else "semantic"
    vpo = recipe in VPO_RECIPES
    stage = base.stage("cavp", task, small)
    stage.model = base.keys(SMALL if small else VPO if vpo else AVSBENCH)
    # What sounds in VPO-SS its table says, whatever a crop shows.
    known = {"classes": "clips"} if recipe == "vpo_ss" else {}
    stage.loss = base.keys(CAVPLoss(views=64, **known) if small else CAVPLoss(**known))
    stage.data.subsets = () if small else SUBSETS[recipe]
    # An epoch is one labelled second of each clip.
    stage.data.sampling, stage.data.seconds = "frame", 1
    if small:
        return stage
    stage.data.batch_size = 16
    stage.data.max_targets = 71  # a dense loss takes any number
    stage.data.image_size = stage.data.label_size = 224 if task == "binary" else 512
    stage.data.augment.flip = 0.5
    if task == "semantic":
        crop = stage.data.augment.scaled_crop
        crop.probability = 1.0
        crop.scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0) if vpo else (0.5, 0.75, 1.0)
    if vpo:
        jitter = stage.data.augment.colour_jitter
        jitter.probability = 1.0
        jitter.brightness = jitter.contrast = jitter.saturation = (0.5, 1.5)
        jitter.hue = (-0.25, 0.25)
    return stage


def paper_phase(recipe: str) -> ConfigDict:
    """Everything trains: what sees by SGD, what hears by Adam."""
    phase = base.phase((".*",), "pretrained", EPOCHS.get(recipe, 80), 1e-3)
    phase.validate_every_epochs = 5.0
    optimizer = phase.optimizer
    optimizer.name, optimizer.momentum = "sgd", 0.9
    optimizer.schedule, optimizer.power = "poly", 0.9
    optimizer.schedule_lag = 1  # the rate is set behind each step
    optimizer.weight_decay = 5e-4 if recipe in VPO_RECIPES else 1e-4
    # The projector and the fusion decay altogether.
    optimizer.no_decay = (r"(backbone|aspp|reduction_norm|head)/.*(bias|scale)",)
    optimizer.multipliers = ((r"(aspp|reduction|reduction_norm|head)/.*", 10.0),)
    sound = {"name": "adam", "schedule": "constant", "weight_decay": 0.0}
    optimizer.groups = ((r"audio_encoder/.*", sound),)
    return phase
