"""What a network heard when a clip was scored, for people who want to hear it, too."""

import numpy as np

from aavs_jax.plan.stage import Stage
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.loading.partners import lenders
from data_pipelines.prepared.source import heard


def heard_with(stage: Stage, name: str, sound: str) -> tuple[str, np.ndarray]:
    """The waveform that was heard with a clip of the test split.

    Args:
      stage: on its data.
      name: of the clip.
      sound: "right", or "other" where a clip of the split can lend it.

    Returns:
      The name of the clip whose sound it is, and float32 [S, channels], 16 kHz, full scale 1, as
      the stage's front end has it. Nothing is heard beyond the end of the clip, and of a shorter
      clip's sound the last second is repeated, as in `data_pipelines.loading.read_clip`.
    """
    source = stage.sources["test"]
    index = next(i for i, clip in enumerate(source.clips) if clip.name == name)
    lender = lenders(source.clips, sound)[index]
    clip = source.clips[lender]
    waveform = heard(clip, source[lender]["waveform"], stage.method.front_end.channels)
    wanted = np.minimum(np.arange(source.clips[index].seconds), clip.seconds - 1)
    seconds = [waveform[t * SAMPLE_RATE : (t + 1) * SAMPLE_RATE] for t in wanted]
    return clip.name, np.concatenate(seconds)
