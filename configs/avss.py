"""AVSS by Stepping Stones: where does it sound (stage `localise`), then what is it (`understand`).

    python -m aavs_jax.main --config=configs/avss.py                  small network, built-in data
    python -m aavs_jax.main --config=configs/avss.py:/data/avsbench   the paper's recipe

The recipe starts from published weights, of which `python -m aavs_jax.convert FILE --out DIR` makes
folders: --config.init.mask2former=DIR (facebook/mask2former-swin-base-ade-semantic) and
--config.init.vggish=DIR (vggish-10086976.pth of torchvggish).

Published with the paper's recipe: mIoU 48.5, F 53.2 (protocol stepping_stones). The code's default
of 60 epochs a stage stands here; the paper reports 30, split in the same proportion.
"""

from configs import aavs, base
from configs.argument import parse_argument


def get_config(argument: str = ""):
    """See configs/argument.py."""
    folder, small = parse_argument(argument)
    config = aavs.run(folder, small)
    config.schedule = ("localise", "understand")
    localise = aavs.stage("binary", small)
    localise.writes_masks = True
    understand = aavs.stage("semantic", small)
    understand.prior.masks = "localise"
    understand.prior.evaluate = ("predicted", "true")
    if small:
        # Nothing is pretrained, so stage two starts from stage one's parameters. What stage one
        # draws in clips that it was trained on is too good to be an example of what it draws in new
        # ones, so stage two trains on what it drew after five eighths of its steps, and sees where
        # it was unsure. Stage two trusts masks too much all the same: half of its answer is one
        # without. What a place is gets more of the epochs than where it sounds
        # (docs/experiments.md).
        localise.earlier = 0.625
        understand.prior.train = "earlier"
        understand.prior.kind = "soft"
        understand.prior.evaluate = ("both", "true")
        base.add_phases(localise, all=aavs.small_phase("nothing", 24))
        base.add_phases(understand, all=aavs.small_phase("localise/all", 40))
    else:
        understand.prior.train = "true"
        understand.data.shuffle = False  # the paper's code walks this set in order
        aavs.add_paper_phases("localise", localise, 60, 30, aavs.BINARY_TRAINS, 0.01)
        aavs.add_paper_phases("understand", understand, 60, 20, aavs.SEMANTIC_TRAINS, 0.0)
    config.stages.localise = localise
    config.stages.understand = understand
    return config
