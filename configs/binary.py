"""Where does it sound, asked of any folder: binary masks, all subsets, one stage.

    python -m aavs_jax.main --config=configs/binary.py                    small network, built-in
    python -m aavs_jax.main --config=configs/binary.py:/data/mine,small   small network, your data
    python -m aavs_jax.main --config=configs/binary.py:/data/mine         the paper's recipe

Labels may tell classes or only foreground; here every class but background counts as sounding. It
is stage one of configs/avss.py alone. configs/s4.py and ms3.py are this, for AVSBench's subsets.
The recipe starts from published weights: see configs/avss.py.
"""

from configs import aavs


def get_config(argument: str = ""):
    """See configs/argument.py."""
    return aavs.binary_benchmark(argument, (), 10)
