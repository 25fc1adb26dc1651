"""S4: one sounding object, binary masks (subset v1s; training sees one label a clip).

    python -m aavs_jax.main --config=configs/s4.py                  small network, built-in data
    python -m aavs_jax.main --config=configs/s4.py:/data/avsbench   the paper's recipe

Folders that are not AVSBench's have other subsets: configs/binary.py takes all clips of any folder.
The recipe starts from published weights, --config.init.mask2former=DIR and
--config.init.vggish=DIR: see configs/avss.py.

Published with the paper's recipe: J 83.2, F 91.3 (protocol stepping_stones). The code's default of
60 epochs stands here; the paper reports 30, split in the same proportion.
"""

from configs import aavs


def get_config(argument: str = ""):
    """See configs/argument.py."""
    return aavs.binary_benchmark(argument, ("v1s",), 5)
