"""MS3: several sources at once, binary masks (subset v1m, every frame labelled).

    python -m aavs_jax.main --config=configs/ms3.py                  small network, built-in data
    python -m aavs_jax.main --config=configs/ms3.py:/data/avsbench   the paper's recipe

Folders that are not AVSBench's have other subsets: configs/binary.py takes all clips of any folder.
The recipe starts from published weights, --config.init.mask2former=DIR and
--config.init.vggish=DIR: see configs/avss.py.

Published with the paper's recipe: J 67.3, F 77.6 (protocol stepping_stones). The code's default of
60 epochs stands here; the paper reports 50, split in the same proportion.
"""

from configs import aavs


def get_config(argument: str = ""):
    """See configs/argument.py."""
    config = aavs.binary_benchmark(argument, ("v1m",), 5)
    config.stages.localise.data.drop_empty_clips = True
    return config
