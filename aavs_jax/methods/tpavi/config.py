"""Sizes of TPAVI and settings of its loss: frozen, hashable values, without JAX: configs read them.

The defaults are the published network with PVT-v2-b5.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from aavs_jax.methods.parts.sizes import AudioConfig, PVTConfig, ResNetConfig, from_dict

BACKBONES = ("pvt", "resnet")
DISTANCES = ("divergence", "euclidean", "nearest")


@dataclasses.dataclass(frozen=True)
class TPAVIConfig:
    """The whole network."""

    task: str = "binary"  # 'binary' (S4, MS3) or 'semantic' (AVSS)
    num_classes: int = 2  # K, background included; of the binary task there is one logit
    prior: bool = False  # told where it sounds, as Stepping Stones tells it
    backbone: str = "pvt"  # or 'resnet': which of the next two is built
    pvt: PVTConfig = PVTConfig()
    resnet: ResNetConfig = ResNetConfig()
    audio: AudioConfig = AudioConfig()
    feature_size: int = 256  # C, everywhere behind the backbone
    dilations: tuple[int, ...] = (3, 6, 12, 18)  # of the neck's convolutions, which are summed
    # Seconds that see each other; the public code has 5 for the 10 s of AVSS, too.
    window: int = 5
    head: tuple[int, ...] = (128, 32)  # channels between C and the logits
    dtype: str = "float32"  # or 'bfloat16', of matrix products and convolutions only

    def __post_init__(self):
        if self.task not in ("binary", "semantic"):
            raise ValueError(f"task must be 'binary' or 'semantic', not {self.task!r}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', not {self.dtype!r}")
        if self.backbone not in BACKBONES:
            raise ValueError(
                f"backbone must be {' or '.join(map(repr, BACKBONES))}, not {self.backbone!r}"
            )
        if len(self.head) != 2:
            raise ValueError(f"head must be two widths, not {self.head!r}")
        if self.feature_size % 2:
            raise ValueError(f"feature_size must be even, not {self.feature_size}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the backbone's four maps."""
        return self.pvt.embed_dims if self.backbone == "pvt" else self.resnet.widths

    @property
    def logits(self) -> int:
        """Channels of the output: one for each class, of the binary task one in all."""
        return 1 if self.task == "binary" else self.num_classes

    @property
    def published_side(self) -> int:
        """Pixels of the frames that the published files were trained on."""
        return 224

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TPAVIConfig":
        """Builds it from nested plain dicts, see `sizes.from_dict`."""
        return from_dict(cls, values)


@dataclasses.dataclass(frozen=True)
class TPAVILoss:
    """Cross-entropy and audio-visual matching (AVM); defaults are those of MS3 and AVSS.

    The published commands set none of the variants of AVM; they are options of the public code.
    """

    avm_weight: float = 0.5  # 0 of S4
    # What is compared: softmaxes by their Kullback-Leibler divergence, or vectors by their
    # Euclidean distance; 'nearest' (binary task) compares what is seen with what is seen in the
    # batch's frame that sounds most alike.
    avm_distance: str = "divergence"
    # Binary task: the divergences of all frames are summed, so that the term grows with the batch;
    # else their mean is taken, as it is of all other distances.
    avm_summed: bool = True
    avm_normalised: bool = False  # whether both vectors are brought to length 1
    # Binary task: whether what is seen is the mean over what is predicted to sound, not the sum of
    # all pixels, each weighted by its probability, over their number.
    avm_thresholded: bool = False

    def __post_init__(self):
        if self.avm_distance not in DISTANCES:
            raise ValueError(
                f"avm_distance must be one of {', '.join(DISTANCES)}, not {self.avm_distance!r}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TPAVILoss":
        """Builds it from a plain dict, see `sizes.from_dict`."""
        return from_dict(cls, values)


# The paper's networks: 101 M parameters, and 91 M (of the file; 68 M that are used), and VGGish.
PVT_B5 = TPAVIConfig()
RESNET_50 = TPAVIConfig(backbone="resnet")
# The same network, which 2 cores train in minutes; its audio encoder trains along. It sees each
# second by itself: from scratch it takes pictures of many clips in a batch, not of four, to learn.
SMALL = TPAVIConfig(
    backbone="resnet",
    resnet=ResNetConfig(block="basic", depths=(1, 1, 1, 1), planes=(16, 32, 48, 64), stem=16),
    audio=AudioConfig(blocks=((16,), (32,), (64,), (64,)), fully_connected=(128,)),
    feature_size=32,
    dilations=(1, 3),
    window=1,
    head=(32, 16),
)


# What cards, which may come from strangers, are held against.
TITLE = "TPAVI"
SIZES = TPAVIConfig
