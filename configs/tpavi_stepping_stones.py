"""TPAVI by Stepping Stones: where does it sound, then, told so, what is it.

    python -m aavs_jax.main --config=configs/tpavi_stepping_stones.py
    python -m aavs_jax.main --config=configs/tpavi_stepping_stones.py:/data/avsbench

The small network on built-in data, and the recipe. Pretrained weights as for tpavi.py. Stage
`localise` is the binary network with the loss of MS3, on all subsets, by the schedule of AVSS;
masks of another network go in with --config.schedule="('understand',)"
--config.stages.understand.prior.masks=DIR.

The paper of Stepping Stones (table of plug-in results, AVSS, mIoU / F) has 29.8 / 35.2 end to end;
with masks of IoU 77.1 27.3 / 29.9, of IoU 83.65 31.5 / 34.9, and with true ones 36.4 / 39.0. How
the mask comes in is not public. Decided here: resized, it is added to every channel of the map that
the head reads, as AAVS adds it to its mask feature; padded frames have none; all else, AVM too, is
as without it. In training it is the true mask, as with AAVS; prior.train=predicted is the
alternative, and the small network's.
"""

from configs import base, tpavi
from configs.argument import parse_argument


def get_config(argument: str = ""):
    """See configs/argument.py."""
    folder, small = parse_argument(argument)
    config = tpavi.run(folder, small)
    config.schedule = ("localise", "understand")
    localise = tpavi.stage("avss", small)
    localise.task = "binary"
    localise.writes_masks = True
    understand = tpavi.stage("avss", small)
    understand.prior.masks = "localise"
    understand.prior.evaluate = ("predicted", "true")
    if small:
        # It sees stage one's errors in training, too, and starts from its parameters.
        understand.prior.train = "predicted"
        base.add_phases(localise, all=tpavi.small_phase("nothing", 40))
        base.add_phases(understand, all=tpavi.small_phase("localise/all", 40))
    else:
        understand.prior.train = "true"
        base.add_phases(localise, all=tpavi.paper_phase("avss"))
        base.add_phases(understand, all=tpavi.paper_phase("avss"))
    config.stages.localise = localise
    config.stages.understand = understand
    return config
