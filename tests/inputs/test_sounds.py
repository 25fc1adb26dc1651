import dataclasses
import types

import numpy as np
import pytest

from aavs_jax.inputs.sounds import heard_with
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.loader import eval_loader, open_source


@dataclasses.dataclass(frozen=True)
class Waves:
    """A front end that hears each second's samples as they are."""

    channels: int = 1

    def __call__(self, waveform: np.ndarray, seconds: int) -> np.ndarray:
        samples = np.zeros((seconds * SAMPLE_RATE, self.channels), np.float32)
        samples[: len(waveform)] = waveform[: len(samples)]
        return samples.reshape(seconds, SAMPLE_RATE, self.channels)


@pytest.mark.parametrize("sound", ["right", "other"])
def test_people_hear_what_the_network_heard(data_dir, sound):
    source = open_source(data_dir, "train")  # five and ten seconds
    method = types.SimpleNamespace(front_end=Waves())
    stage = types.SimpleNamespace(sources={"test": source}, method=method)
    lengths = {clip.name: clip.seconds for clip in source.clips}
    batches = eval_loader(
        source,
        task="semantic",
        image_size=16,
        label_size=8,
        frames_per_batch=10,
        sound=sound,
        front_end=Waves(),
    )
    compared, repeated = 0, 0
    for batch in batches:
        for name, heard in zip(map(str, batch["ids"]), batch["audio"], strict=True):
            if name:
                lender, waveform = heard_with(stage, name, sound)
                assert (lender == name) == (sound == "right")
                np.testing.assert_array_equal(waveform, np.concatenate(heard))
                assert waveform.any()
                compared += 1
                repeated += lengths[lender] < lengths[name]
    assert compared == len(source)
    assert (repeated > 0) == (sound == "other")
