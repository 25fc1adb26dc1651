"""Sizes of AVSegFormer: frozen, hashable values. The defaults are the paper's binary network."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from aavs_jax.methods.parts.sizes import (
    AudioConfig,
    PVTConfig,
    ResNetConfig,
    check_divides,
    from_dict,
)

GROUPS = 32  # of every GroupNorm
MIXER_HEADS = 8


@dataclasses.dataclass(frozen=True)
class AVSegFormerConfig:
    """The whole network; defaults are the paper's with PVT-v2-b5 (S4, MS3)."""

    task: str = "binary"  # or 'semantic'
    num_classes: int = 2  # K, background included
    num_queries: int = 300  # Q; an axis of the query MLP, so that weights fit no other number
    backbone: str = "pvt"  # or 'resnet'; the sizes of the other count for nothing
    pvt: PVTConfig = PVTConfig()
    resnet: ResNetConfig = ResNetConfig()
    audio: AudioConfig = AudioConfig()
    feature_size: int = 256  # C, everywhere behind the backbone
    num_heads: int = 8
    encoder_layers: int = 6  # of deformable attention
    encoder_ffn: int = 2048
    generator_layers: int = 6
    generator_ffn: int = 1024
    decoder_layers: int = 6
    decoder_ffn: int = 2048
    query_hidden: int = 2048  # hidden width of the MLP over the queries' maps
    head_channels: tuple[int, ...] = (128, 32)  # before and behind the enlargement to the frame
    dropout: float = 0.1  # chance that a number is left out in training, in encoder and decoder
    prior: bool = False  # told where it sounds: added to the mask feature (Stepping Stones)
    dtype: str = "float32"  # or 'bfloat16', of matrix products and convolutions only

    def __post_init__(self):
        for name, known in (
            ("task", ("binary", "semantic")),
            ("backbone", ("pvt", "resnet")),
            ("dtype", ("float32", "bfloat16")),
        ):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
        if len(self.head_channels) != 2:
            raise ValueError(f"head_channels {self.head_channels} needs two numbers")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, not {self.dropout}")
        check_divides("num_heads", self.num_heads, "feature_size", self.feature_size)
        check_divides("the mixer's heads,", MIXER_HEADS, "feature_size", self.feature_size)
        check_divides("the number of GroupNorm groups,", GROUPS, "feature_size", self.feature_size)

    @property
    def published_side(self) -> int:
        """Pixels of the frames that the files given out were trained on; the paper's had 224."""
        return 512

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AVSegFormerConfig":
        """Builds it from nested plain dicts, see `sizes.from_dict`."""
        return from_dict(cls, values)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the backbone's four maps."""
        return self.pvt.embed_dims if self.backbone == "pvt" else self.resnet.widths

    @property
    def outputs(self) -> int:
        """Maps of logits: of the binary task one, else one for each class."""
        return 1 if self.task == "binary" else self.num_classes


@dataclasses.dataclass(frozen=True)
class AVSegFormerLoss:
    """Settings of the loss (section 3.6 of the paper)."""

    mix_weight: float = 0.1  # of the dice that the mixed mask feature's mean has

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AVSegFormerLoss":
        """Builds it from a plain dict, see `sizes.from_dict`."""
        return from_dict(cls, values)


PAPER = AVSegFormerConfig()
# The same network, which 2 cores train in minutes; its audio encoder trains along.
SMALL = AVSegFormerConfig(
    num_queries=16,
    feature_size=64,
    num_heads=4,
    encoder_layers=1,
    encoder_ffn=256,
    generator_layers=2,
    generator_ffn=128,
    decoder_layers=2,
    decoder_ffn=256,
    query_hidden=64,
    head_channels=(32, 16),
    dropout=0.0,
    pvt=PVTConfig(
        embed_dims=(32, 64, 128, 256),
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 4, 8),
        reductions=(4, 2, 2, 1),
        drop_path_rate=0.0,
    ),
    resnet=ResNetConfig(depths=(1, 1, 1, 1), planes=(8, 16, 32, 64), stem=16),
    audio=AudioConfig(blocks=((16,), (32,), (64,), (64,)), fully_connected=(128,)),
)


# What cards, which may come from strangers, are held against.
TITLE = "AVSegFormer"
SIZES = AVSegFormerConfig
