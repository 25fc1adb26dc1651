"""What a network hears at any moment of a sound of any length.

It was trained on clips of whole seconds, each second with the frame that is seen at its end and
with one row of the front end. So a film is heard as if it had been cut into such clips, one after
the other; and of several frames a second, as if it had been cut anew for each of them, each time a
little later. At one frame a second a film gets what its prepared clip would get, to the bit.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.loading.front_ends import FrontEnd
from data_pipelines.media.sound_stream import SoundStream
from data_pipelines.media.video_files import FRAME_MOMENT

CLIP_SECONDS = 10  # of the clips that a film is cut into: AVSBench's longest
MOST_CUTS = 20  # that a second is cut at; the sound of more frames is that of the nearest cut


def moments(rate: float) -> Iterator[float]:
    """When frames are taken, s, without end: at 15/16 of each second, or of its part."""
    step = 0
    while True:
        yield (step + FRAME_MOMENT) / rate
        step += 1


class Hearing:
    """The rows of a front end that belong to moments of a sound, asked for in order of time."""

    def __init__(self, sound: SoundStream, front_ends: Sequence[FrontEnd]):
        self._sound, self._front_ends = sound, front_ends
        # (number of the clip, its beginning in samples) -> rows of each front end
        self._clips: dict[tuple[int, int], list[np.ndarray]] = {}

    def rows(self, times: Sequence[float]) -> dict[FrontEnd, np.ndarray]:
        """What is heard at some moments.

        Args:
          times: s, growing, and not before those of the last call.

        Returns:
          By front end [n,...], a row for each moment: of the second that began 15/16 s before it,
          or of the first second.
        """
        found: list[list[np.ndarray]] = [[] for _ in self._front_ends]
        for time in times:
            start = round(max(0.0, time - FRAME_MOMENT) * SAMPLE_RATE)
            number, rest = divmod(start, CLIP_SECONDS * SAMPLE_RATE)
            second, late = divmod(rest, SAMPLE_RATE)
            for rows, clip in zip(found, self._clip(number, late), strict=True):
                rows.append(clip[second])
        return {
            front_end: np.stack(rows)
            for front_end, rows in zip(self._front_ends, found, strict=True)
        }

    def _clip(self, number: int, late: int) -> list[np.ndarray]:
        """Rows of each second of a clip that begins `late` samples after its number says."""
        late = round(late * MOST_CUTS / SAMPLE_RATE) * SAMPLE_RATE // MOST_CUTS
        if (number, late) not in self._clips:
            # Cuts of clips that are over are not asked for again.
            self._clips = {key: rows for key, rows in self._clips.items() if key[0] >= number}
            begin = number * CLIP_SECONDS * SAMPLE_RATE
            length = CLIP_SECONDS * SAMPLE_RATE
            waveform = self._sound.read(begin, begin + late + length)[late:]
            self._clips[number, late] = [
                front_end(_channels(waveform, front_end.channels), CLIP_SECONDS)
                for front_end in self._front_ends
            ]
        return self._clips[number, late]


def _channels(waveform: np.ndarray, channels: int) -> np.ndarray:
    """Of a sound that another front end hears with both sides, the mean for those that do not."""
    return waveform if waveform.shape[1] == channels else waveform.mean(axis=1, keepdims=True)
