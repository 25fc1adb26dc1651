"""AVSegFormer: masks by queries made of the sound, and channels that the sound opens and closes.

    python -m aavs_jax.main --config=configs/avsegformer.py                    small, built-in data
    python -m aavs_jax.main --config=configs/avsegformer.py:/data/avsbench     AVSS, paper's recipe
    python -m aavs_jax.main --config=configs/avsegformer.py:/data/avsbench,s4  or ms3
    python -m aavs_jax.main --config=configs/avsegformer.py:/data/mine,ms3,small

The recipe is that of the public code, number for number, with PVT-v2-b5. It starts from published
weights, of which `python -m aavs_jax.convert FILE --out DIR` makes folders:
--config.init.backbone=DIR (pvt_v2_b5.pth) and --config.init.vggish=DIR (vggish-10086976.pth of
torchvggish). ResNet-50 is --config.stages.STAGE.model.backbone=resnet, with resnet50-19c8e357.pth
of torchvision; STAGE is `localise` of s4 and ms3, `understand` of avss.

Published, mIoU / F of the protocol avsegformer (--config.eval.protocols=avsegformer). The public
loaders of S4 and MS3 resize to 512 pixels, which stands here, and that of AVSS to 224; the paper's
scores are of 224 throughout (data.image_size, data.label_size), those of the released files of 512.

    PVT-v2-b5, paper         S4 82.06 / 89.9    MS3 58.36 / 69.3    AVSS 36.66 / 42.0
    PVT-v2-b5, released      S4 83.06 / 90.5    MS3 61.33 / 73.0    AVSS 37.31 / 42.8
    ResNet-50, released      S4 76.38 / 86.7    MS3 53.81 / 65.6    AVSS 26.58 / 31.5

The small network on built-in data, with the right sound, another clip's and silence: mIoU 0.80,
0.12 and 0.10, in seven minutes of 2 cores.

What the public code does that scores depend on stands in docs/neighbours.md.
"""

from ml_collections import ConfigDict

from aavs_jax.methods.avsegformer.config import PAPER, SMALL, AVSegFormerLoss
from configs import base
from configs.argument import parse_recipe

RECIPES = ("avss", "s4", "ms3")
EPOCHS = {"s4": 30, "ms3": 60, "avss": 30}
FROZEN = {"s4": 5, "ms3": 10, "avss": 0}  # of them, epochs in which the backbone does not train
SUBSETS = {"s4": ("v1s",), "ms3": ("v1m",), "avss": ()}


def get_config(argument: str = ""):
    """See configs/argument.py; the recipe is avss, s4 or ms3."""
    folder, recipe, small = parse_recipe(argument, RECIPES)
    config = run(folder, small)
    name = "understand" if recipe == "avss" else "localise"
    config.schedule = (name,)
    config.stages[name] = stage(recipe, small)
    if small:
        base.add_phases(config.stages[name], all=base.small_phase("nothing", 64))
    else:
        add_paper_phases(name, config.stages[name], recipe)
    return config


def run(folder: str, small: bool) -> ConfigDict:
    """What all runs share, with the pretrained parts of AVSegFormer."""
    config = base.base(folder, small)
    config.init.backbone = ""  # a PVT-v2 or ResNet, or a whole AVSegFormer to go on from
    config.init.vggish = ""  # the audio encoder
    if not small:
        config.seed = 123
    return config


def stage(recipe: str, small: bool) -> ConfigDict:
    """A stage without its phases.

    Args:
      recipe: of RECIPES: which data, and by what loss.
      small: the small network, on all subsets.
    """
    stage = base.stage("avsegformer", "semantic" if recipe == "avss" else "binary", small)
    stage.model = base.keys(SMALL if small else PAPER)
    stage.loss = base.keys(AVSegFormerLoss())
    if small:
        return stage
    stage.data.subsets = SUBSETS[recipe]
    stage.data.sampling = "film"  # of S4 each clip's first second, by its own sound
    if recipe == "avss":
        stage.data.batch_size = 4
        stage.data.max_targets = 71  # a dense loss takes any number
        stage.data.image_size = stage.data.label_size = 224
        stage.data.resize = "centre_crop"
        # Clips of five seconds are filled up to ten: batches are of any clips, as they come.
        stage.data.seconds, stage.data.bucket_by_length = 10, False
    else:
        stage.data.batch_size = 2
        stage.data.image_size = stage.data.label_size = 512
        stage.data.seconds = 5
    return stage


def add_paper_phases(name: str, stage: ConfigDict, recipe: str) -> None:
    """The backbone frozen at first, where it is; then all but the audio encoder.

    In the public code the head's moments go on when the backbone is freed, and so do the
    parameters as they are. Here each phase has moments of its own and starts from the best epoch
    of the one before.
    """
    frozen, stage.best_over_phases = FROZEN[recipe], "all"
    phases = {}
    if frozen:
        phases["head"] = _phase(r"(?!audio_encoder/|backbone/).*", "pretrained", frozen)
    start = f"{name}/head" if frozen else "pretrained"
    phases["all"] = _phase(r"(?!audio_encoder/).*", start, EPOCHS[recipe] - frozen)
    if recipe == "avss":
        # The public code validates every second epoch, from the 10th on.
        phases["all"].validate_every_epochs = 2.0
    base.add_phases(stage, **phases)


def _phase(trains: str, start: str, epochs: int) -> ConfigDict:
    """AdamW at a constant rate; what decays is everything, norms and biases, too."""
    phase = base.phase((trains,), start, epochs, 2e-5)
    phase.optimizer.weight_decay = 0.01
    return phase
