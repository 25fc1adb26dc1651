"""TPAVI, AVSBench's baseline: dense masks from pixels that ask the sounds of five seconds.

    python -m aavs_jax.main --config=configs/tpavi.py                      small network, built-in
    python -m aavs_jax.main --config=configs/tpavi.py:/data/avsbench       AVSS, the paper's recipe
    python -m aavs_jax.main --config=configs/tpavi.py:/data/avsbench,s4    or ms3
    python -m aavs_jax.main --config=configs/tpavi.py:/data/mine,ms3,small

The recipe is that of the public code, number for number, with PVT-v2-b5. It starts from published
weights, of which `python -m aavs_jax.convert FILE --out DIR` makes folders:
--config.init.backbone=DIR (pvt_v2_b5.pth) and --config.init.vggish=DIR (vggish-10086976.pth of
torchvggish). ResNet-50 is --config.stages.STAGE.model.backbone=resnet, with resnet50-19c8e357.pth
of torchvision; STAGE is `localise` of s4 and ms3, `understand` of avss.

Published, mIoU / F of the protocol avsbench (--config.eval.protocols=avsbench), 224 pixels:

    ResNet-50    S4 72.8 / 84.8    MS3 47.9 / 57.8    AVSS 20.2 / 25.2
    PVT-v2-b5    S4 78.7 / 87.9    MS3 54.0 / 64.5    AVSS 29.8 / 35.2

The small network has no audio-visual matching (docs/neighbours.md says why). On built-in data, with
the right sound, another clip's and silence: where it sounds, after 32 epochs, J 0.83, 0.13 and
0.07; avss, after 64 of its 80, mIoU 0.80, 0.12 and 0.10, in ten minutes of one core.

What the public code does that scores depend on stands in docs/neighbours.md.
"""

from ml_collections import ConfigDict

from aavs_jax.methods.tpavi.config import PVT_B5, SMALL, TPAVILoss
from configs import base
from configs.argument import parse_recipe

RECIPES = ("avss", "s4", "ms3")
EPOCHS = {"s4": 15, "ms3": 30, "avss": 60}
SUBSETS = {"s4": ("v1s",), "ms3": ("v1m",), "avss": ()}


def get_config(argument: str = ""):
    """See configs/argument.py; the recipe is avss, s4 or ms3."""
    folder, recipe, small = parse_recipe(argument, RECIPES)
    config = run(folder, small)
    name = "understand" if recipe == "avss" else "localise"
    config.schedule = (name,)
    config.stages[name] = stage(recipe, small)
    if small:
        base.add_phases(config.stages[name], all=small_phase("nothing", 80))
    else:
        base.add_phases(config.stages[name], all=paper_phase(recipe))
    return config


def run(folder: str, small: bool) -> ConfigDict:
    """What all runs share, with the pretrained parts of TPAVI."""
    config = base.base(folder, small)
    config.init.backbone = ""  # a PVT-v2 or ResNet, or a whole TPAVI to go on from
    config.init.vggish = ""  # the audio encoder
    if not small:
        config.seed = 123
        config.eval.frames_per_batch = 40
    return config


def stage(recipe: str, small: bool) -> ConfigDict:
    """A stage without its phases.

    Args:
      recipe: of RECIPES: which data, and by what loss.
      small: the small network, on all subsets.
    """
    task = "semantic" if recipe == "avss" else "binary"
    stage = base.stage("tpavi", task, small)
    stage.model = base.keys(SMALL if small else PVT_B5)
    # From scratch matching takes the sounds' encoder along, and it learns to hear nothing.
    matching = 0.0 if small or recipe == "s4" else 0.5
    stage.loss = base.keys(TPAVILoss(avm_weight=matching))
    if small:
        return stage
    # Seconds see each other, so clips are shown whole.
    stage.data.sampling = "film"
    stage.data.batch_size = 4
    stage.data.subsets = SUBSETS[recipe]
    stage.data.image_size = stage.data.label_size = 224
    if recipe == "avss":
        stage.data.max_targets = 71  # a dense loss takes any number
        # Clips of five seconds are filled up, and take part in the statistics of batch norms.
        stage.data.seconds, stage.data.bucket_by_length = 10, False
        stage.data.resize = "centre_crop"
    else:
        stage.data.seconds = 5
    return stage


def small_phase(start: str, epochs: float) -> ConfigDict:
    """Of the small network; arguments as in `base.phase`."""
    phase = base.small_phase(start, epochs)
    phase.optimizer.learning_rate = 2e-3
    return phase


def paper_phase(recipe: str) -> ConfigDict:
    """All but the audio encoder, by Adam without weight decay, at a constant rate."""
    phase = base.phase((r"(?!audio_encoder/).*",), "pretrained", EPOCHS[recipe], 1e-4)
    # The public code of AVSS validates every second epoch, from the 16th on.
    phase.validate_every_epochs = 2.0 if recipe == "avss" else 1.0
    phase.optimizer.name = "adam"
    phase.optimizer.weight_decay = 0.0
    return phase
