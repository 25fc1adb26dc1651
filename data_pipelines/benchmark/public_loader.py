"""How public AVS repositories load their data, written plainly, for `benchmark` to measure against.

A PyTorch DataLoader whose items are single clips: every picture file opened, converted, resized,
turned into a float tensor and normalised; every mask opened and resized; the sound file read, its
log-mel examples computed and passed through VGGish, at every access.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.loading.front_ends import log_mel_examples
from data_pipelines.media.waveforms import SAMPLE_RATE, load_waveform
from data_pipelines.reading.raw import RawClip

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's red, green and blue
STD = (0.229, 0.224, 0.225)
CONVOLUTIONS = ((64,), (128,), (256, 256), (512, 512))  # VGGish, each tuple ends in a pooling
LINEAR = (4096, 4096, 128)


def batches(
    clips: Sequence[RawClip], *, image_size: int, label_size: int, num_workers: int
) -> Iterator[dict]:
    """Endless batches of one clip each, in order, then from the first one again.

    Args:
        clips: what to read.
        image_size: S of frames, pixels.
        label_size: G of masks, pixels.
        num_workers: worker processes; 0: none but this one.

    Yields:
        Tensors: frames float32 [1,F,3,S,S], labels float32 [1,L,1,G,G], audio float32 [1,T,128].

    Raises:
        DataError: PyTorch is not installed.
    """
    torch = import_torch()
    torch.set_num_threads(1)  # as a DataLoader's workers have it
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    vggish = _vggish(torch)

    def frame(path: Path):
        image = Image.open(path).convert("RGB")
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (tensor - mean) / std

    def mask(path: Path):
        image = Image.open(path).convert("L")
        image = image.resize((label_size, label_size), Image.Resampling.NEAREST)
        return torch.from_numpy((np.array(image) > 0).astype(np.float32))[None]

    def embeddings(clip: RawClip):
        samples = clip.seconds * SAMPLE_RATE
        waveforms = [load_waveform(sound.path)[:samples] for sound in clip.sounds]
        longest = max(map(len, waveforms))
        mixture = sum(np.pad(waveform, (0, longest - len(waveform))) for waveform in waveforms)
        # Not by `LogMel`, which has a matrix product use one thread: public loaders do not.
        examples = log_mel_examples(mixture)
        examples = examples[np.minimum(np.arange(clip.seconds), len(examples) - 1)]
        with torch.no_grad():
            return vggish(torch.from_numpy(examples)[:, None])

    class Clips(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(clips)

        def __getitem__(self, index: int):
            clip = clips[index]
            return {
                "frames": torch.stack([frame(path) for path in shown(clip)]),
                "labels": torch.stack([mask(path) for _, path in clip.labels]),
                "audio": embeddings(clip),
            }

    class Endless(torch.utils.data.Sampler):
        def __iter__(self) -> Iterator[int]:
            while True:
                yield from range(len(clips))

    loader = torch.utils.data.DataLoader(
        Clips(),
        batch_size=1,
        sampler=Endless(),
        num_workers=num_workers,
        # What is defined in here cannot be pickled, which other ways of starting workers ask for.
        multiprocessing_context="fork" if num_workers else None,
    )
    return iter(loader)


def shown(clip: RawClip) -> tuple[Path, ...]:
    """The pictures of a clip that training shows: with a label in the first second alone, one."""
    return clip.frames[:1] if [second for second, _ in clip.labels] == [0] else clip.frames


def import_torch():
    """The module `torch`, with `torch.utils.data`.

    Raises:
        DataError: PyTorch is not installed, or does not start.
    """
    try:
        import torch
        import torch.utils.data
    except (ImportError, OSError) as fault:  # OSError: one of its shared libraries is missing
        raise DataError(
            "the comparison with public loaders needs PyTorch, which cannot be imported "
            f"({' '.join(str(fault).split())[:200]}): install it with "
            'pip install -e ".[test]", or measure this pipeline alone with --alone'
        ) from fault
    return torch


def _vggish(torch):
    """VGGish with random weights: [n,1,96,64] -> [n,128]."""
    layers, channels = [], 1
    for block in CONVOLUTIONS:
        for width in block:
            layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU()]
            channels = width
        layers.append(torch.nn.MaxPool2d(2))
    layers.append(torch.nn.Flatten())
    size = channels * 6 * 4
    for width in LINEAR:
        layers += [torch.nn.Linear(size, width), torch.nn.ReLU()]
        size = width
    return torch.nn.Sequential(*layers).eval()
