"""AVSegFormer by Stepping Stones: where does it sound, then, told so, what is it.

    python -m aavs_jax.main --config=configs/avsegformer_stepping_stones.py
    python -m aavs_jax.main --config=configs/avsegformer_stepping_stones.py:/data/avsbench

The small network on built-in data, and the recipe. Pretrained weights as for avsegformer.py. Stage
`localise` is the binary network, on all subsets, by the schedule of AVSS; masks of another network
go in with --config.schedule="('understand',)" --config.stages.understand.prior.masks=DIR.

The paper of Stepping Stones (table of plug-in results, AVSS, mIoU / F) has 36.7 / 42.0 end to end;
with masks of IoU 77.1 35.4 / 39.0, of IoU 83.65 39.4 / 42.5, and with true ones 46.3 / 48.0. How
the mask comes in is not public. Decided here: it is added to every channel of the mask feature
behind the mixer, so that neither the gate nor the mix loss sees it (with a true mask the mean over
channels would hold the answer); padded frames have none; all else is as without it. In training it
is the true mask, as with AAVS; prior.train=predicted is the alternative, and the small network's.
"""

from configs import avsegformer, base


def get_config(argument: str = ""):
    """See configs/base.py for the argument."""
    folder, small = base.parse_argument(argument)
    config = avsegformer.run(folder, small)
    config.schedule = ("localise", "understand")
    localise = avsegformer.stage("avss", small)
    localise.task = "binary"
    localise.writes_masks = True
    understand = avsegformer.stage("avss", small)
    understand.prior.masks = "localise"
    understand.prior.evaluate = ("predicted", "true")
    if small:
        # It sees stage one's errors in training, too, and starts from its parameters.
        understand.prior.train = "predicted"
        base.add_phases(localise, all=base.small_phase("nothing", 32))
        base.add_phases(understand, all=base.small_phase("localise/all", 32))
    else:
        understand.prior.train = "true"
        avsegformer.add_paper_phases("localise", localise, "avss")
        avsegformer.add_paper_phases("understand", understand, "avss")
    config.stages.localise = localise
    config.stages.understand = understand
    return config
