"""Sizes of CAVP and settings of its loss: frozen, hashable values, without JAX: configs read them.

The defaults are the network that is published for AVSBench: a deep-stem ResNet-50 and VGGish.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from aavs_jax.methods.parts.sizes import AudioConfig, ResNetConfig, check_divides, from_dict

HEADS = 4  # of the fusion's attention
# DeepLab's ResNets: where a stage does not halve its map its 3x3 convolutions are dilated.
RESNET_50 = ResNetConfig(
    deep_stem=True, strides=(1, 2, 2, 1), dilations=((1,), (1,), (1,), (2, 4, 8))
)
RESNET_101 = ResNetConfig(
    deep_stem=True,
    depths=(3, 4, 23, 3),
    strides=(1, 2, 1, 1),
    dilations=((1,), (1,), (1, 2), (2, 4, 8)),
)
# The sound encoder of 3 s; its input channels are `audio.channels`.
RESNET_18 = ResNetConfig(block="basic", depths=(2, 2, 2, 2), input_channels=1)


@dataclasses.dataclass(frozen=True)
class CAVPConfig:
    """The whole network.

    Of `audio` an encoder of 3 s reads nothing but the channels; one of 1 s reads nothing of
    `sound_resnet`.
    """

    task: str = "binary"  # 'binary' or 'semantic'
    num_classes: int = 2  # K, background included
    prior: bool = False  # CAVP is told nothing of where it sounds
    resnet: ResNetConfig = RESNET_50  # the picture encoder
    heard: int = 1  # seconds of sound: 1, by an encoder of VGGish's shape, or 3, by a ResNet
    # Its last width is replaced by that of the fused features.
    audio: AudioConfig = AudioConfig(fully_connected=(4096, 4096))
    sound_resnet: ResNetConfig = RESNET_18
    # Whether short sounds are cut as by the public code, see `power_spectrogram.PowerMel`.
    published_excerpts: bool = False
    aspp_width: int = 256  # of each of ASPP's branches
    aspp_outputs: int = 256
    low_level: int = 48  # channels that the first stage's map is reduced to
    projector: int = 256  # hidden width
    head: int = 256  # width of the two convolutions behind the fusion
    dtype: str = "float32"  # or 'bfloat16', of matrix products and convolutions only

    def __post_init__(self):
        if self.task not in ("binary", "semantic"):
            raise ValueError(f"task must be 'binary' or 'semantic', not {self.task!r}")
        if self.heard not in (1, 3):
            raise ValueError(f"heard must be 1 or 3 seconds, not {self.heard!r}")
        if self.prior:
            raise ValueError("this network, CAVP, takes no prior mask: set prior.train to 'none'")
        check_divides("the number of attention heads,", HEADS, "the fused width", self.width)

    @property
    def width(self) -> int:
        """D, of the fused features."""
        return self.aspp_outputs + self.low_level

    @property
    def published_side(self) -> int:
        """Pixels of the frames that the published files were trained on: of 3 s of sound VPO's."""
        return 224 if self.heard == 1 else 512

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CAVPConfig":
        """Builds it from nested plain dicts, see `sizes.from_dict`."""
        return from_dict(cls, values)


AVSBENCH = CAVPConfig()
VPO = CAVPConfig(resnet=RESNET_101, heard=3)
# What follows the folder in the config's argument -> the network that its files have.
PUBLISHED = {"": AVSBENCH, "vpo_ss": VPO}
# The same network, 0.9 M parameters, which 2 cores train in minutes.
SMALL = CAVPConfig(
    resnet=ResNetConfig(
        deep_stem=True,
        stem=16,
        depths=(1, 1, 2, 1),
        planes=(16, 24, 32, 48),
        strides=(1, 2, 1, 1),
        dilations=((1,), (1,), (1, 2), (2,)),
    ),
    audio=AudioConfig(blocks=((16,), (32,), (64,), (64,)), fully_connected=(128,)),
    aspp_width=48,
    aspp_outputs=64,
    low_level=16,
    projector=96,
    head=64,
)


@dataclasses.dataclass(frozen=True)
class CAVPLoss:
    """What trains it (the paper's section on contrastive learning, and its code).

    Attributes:
      contrastive_weight: of the contrastive loss beside the cross-entropy; 0 leaves it out, and
        with it the pictures under other sounds.
      temperature: of its cosines.
      views: V, pixels drawn of a class.
      pairs: what pictures are shown with besides their own sounds. 'sounds': those of other clips,
        before they are encoded, some replaced by others of the picture's own class. 'features': the
        encoded sounds of other clips; of those that would be replaced only the label changes, and
        so they are called right though they are wrong, as in the public stereo trainer.
      replaced_share: of the pairs that do not match, that are to be replaced.
      replaced_after_epochs: epochs before the first replacement, in a stage's first phase; in
        others the same share of the phase.
      queue: sounds that are kept of each class to replace others; 0: as many as a batch has clips.
      silence_in_queue: whether a class that has been seen less often than that lends silence, as in
        the public code; else it lends what there is, or nothing.
      classes: whether what sounds in a picture, which decides what matches, is told by its 'labels'
        or by the table of 'clips'. With the binary task it is always the table.
    """

    contrastive_weight: float = 1.0
    temperature: float = 0.1
    views: int = 512
    pairs: str = "sounds"
    replaced_share: float = 0.5
    replaced_after_epochs: float = 1.0
    queue: int = 0
    silence_in_queue: bool = False
    classes: str = "labels"

    def __post_init__(self):
        for name, choices in (("pairs", ("sounds", "features")), ("classes", ("labels", "clips"))):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
        if self.temperature <= 0 or self.views < 1:
            raise ValueError("temperature must be above 0 and views at least 1")
        if not 0 <= self.replaced_share <= 1 or self.replaced_after_epochs < 0 or self.queue < 0:
            raise ValueError(
                "replaced_share must be 0 to 1, replaced_after_epochs and queue at least 0"
            )

    @property
    def replaces(self) -> bool:
        """Whether any sound is ever replaced, so that a queue is kept."""
        return self.contrastive_weight > 0 and self.pairs == "sounds" and self.replaced_share > 0


# What cards, which may come from strangers, are held against.
TITLE = "CAVP"
SIZES = CAVPConfig
