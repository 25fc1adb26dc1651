"""What a trained network costs, measured in a process of its own.

python -m aavs_jax.compare.measure RUN FILE
"""

import json
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np

from aavs_jax.benchmark import flops
from aavs_jax.errors import UserError
from aavs_jax.prediction.network import Network, load
from aavs_jax.run.files import replace_file
from data_pipelines.facts.avsbench import SAMPLE_RATE

CLIPS, SECONDS = 8, 5  # of a batch that is timed
ROUNDS = 5


def cost(network: Network) -> dict[str, float]:
    """Parameters, FLOPs and speed of a network and those before it.

    Returns:
      parameters: how many numbers, running statistics among them.
      flops: of matrix products and convolutions for a frame of a clip of SECONDS, from the sound's
        spectrogram and the picture to the classes.
      frames_per_second: predicted, CLIPS clips at a time, on this machine's device; the median.
    """
    rng = np.random.default_rng(0)
    sound = rng.uniform(-1, 1, SAMPLE_RATE * SECONDS).astype(np.float32)
    shown, heard = {}, {}
    for each in network.chain:
        frames = rng.integers(0, 256, (CLIPS, SECONDS, each.side, each.side, 3), np.uint8)
        shown[each.side] = frames
        front_end = each.method.front_end
        waveform = np.repeat(sound[:, None], front_end.channels, 1)
        heard[front_end] = np.repeat(front_end(waveform, SECONDS)[None], CLIPS, 0)
    one_shown = {side: array[:1] for side, array in shown.items()}
    one_heard = {front_end: array[:1] for front_end, array in heard.items()}
    traced = jax.make_jaxpr(lambda: network.of_rows(one_shown, one_heard).classes)()
    jax.block_until_ready(network.of_rows(shown, heard).classes)  # compiles
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(network.of_rows(shown, heard).classes)
        seconds.append(time.perf_counter() - start)
    numbers = sum(array.size for each in network.chain for array in each.parameters.values())
    return {
        "parameters": int(numbers),
        "flops": flops.of(traced.jaxpr) / SECONDS,
        "frames_per_second": CLIPS * SECONDS / statistics.median(seconds),
    }


def main(run: str, file: str) -> int:
    """Writes the cost of a run's networks; returns the exit code."""
    try:
        replace_file(Path(file), json.dumps(cost(load(run)), indent=1).encode())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
