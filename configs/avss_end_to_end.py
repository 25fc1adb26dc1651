"""AVSS in one stage, no prior mask: the ablation that Stepping Stones has to beat.

    python -m aavs_jax.main --config=configs/avss_end_to_end.py

The small form trains as long as both stages of configs/avss.py together, the paper's recipe as long
as its second. The paper's one-stage AAVS: mIoU 37.1, F 41.7 (protocol stepping_stones).
"""

from configs import aavs, base
from configs.argument import parse_argument


def get_config(argument: str = ""):
    """See configs/argument.py."""
    folder, small = parse_argument(argument)
    config = aavs.run(folder, small)
    config.schedule = ("understand",)
    understand = aavs.stage("semantic", small)
    if small:
        base.add_phases(understand, all=aavs.small_phase("nothing", 64))
    else:
        understand.data.shuffle = False
        # There is no prior mask, so none of the keys that tell sounding places apart.
        trains = aavs.SEMANTIC_TRAINS[:-1]
        aavs.add_paper_phases("understand", understand, 60, 20, trains, 0.0)
    config.stages.understand = understand
    return config
