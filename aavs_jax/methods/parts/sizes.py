"""Sizes of parts: frozen, hashable values. The defaults are the published networks."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

Sizes = TypeVar("Sizes")

# The published Swins by name, with the windows of the Mask2Formers that are published with them.
BACKBONES = {
    "swin_t": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7),
    "swin_s": dict(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24), window_size=7),
    "swin_b": dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=12),
    "swin_l": dict(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=12),
}
# What the options of drop-path may be.
DROP_PATH_OPTIONS = {
    "drop_path_schedule": ("constant", "linear"),
    "drop_path_branches": ("attention", "both"),
}

# Set in a network's or loss's configuration by the program, not by a config file.
NOT_KEYS = ("task", "num_classes", "prior", "max_targets", "ignores")


def check_divides(name: str, divisor: int, of: str, value: int) -> None:
    if value % divisor:
        raise ValueError(f"{name} {divisor} must divide {of} {value}")


@dataclasses.dataclass(frozen=True)
class SwinConfig:
    """The backbone; defaults are Swin-B at 384 pixels."""

    embed_dim: int = 128  # channels of the first stage, doubling from stage to stage
    depths: tuple[int, ...] = (2, 2, 18, 2)  # blocks per stage
    num_heads: tuple[int, ...] = (4, 8, 16, 32)  # per stage
    window_size: int = 12  # tokens per side of an attention window
    patch_size: int = 4  # pixels per side of a token
    mlp_ratio: float = 4.0
    # Chance that a block's branch is left out for a frame in training.
    drop_path_rate: float = 0.3
    # 'constant': the same in every block; 'linear': rising from 0 at the first to the last block.
    drop_path_schedule: str = "constant"
    drop_path_branches: str = "attention"  # that may be left out; or 'both', the MLP's on its own

    def __post_init__(self):
        if len(self.depths) != 4 or len(self.num_heads) != 4:
            raise ValueError(
                f"a backbone has four stages: depths {self.depths} and num_heads {self.num_heads} "
                "need four numbers each"
            )
        for stage, heads in enumerate(self.num_heads):
            check_divides(
                "num_heads", heads, f"the width of stage {stage}", self.embed_dim << stage
            )
        # The pixel decoder and the readout count on strides 4, 8, 16 and 32.
        if self.patch_size != 4:
            raise ValueError(f"patch_size must be 4, not {self.patch_size}")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(
                f"drop_path_rate must be at least 0 and less than 1, not {self.drop_path_rate}"
            )
        for name, known in DROP_PATH_OPTIONS.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")


@dataclasses.dataclass(frozen=True)
class PVTConfig:
    """The Pyramid Vision Transformer v2 as backbone; defaults are PVT-v2-b5."""

    embed_dims: tuple[int, ...] = (64, 128, 320, 512)  # channels of each stage
    num_heads: tuple[int, ...] = (1, 2, 5, 8)
    depths: tuple[int, ...] = (3, 6, 40, 3)  # blocks
    mlp_ratios: tuple[int, ...] = (4, 4, 4, 4)
    reductions: tuple[int, ...] = (8, 4, 2, 1)  # keys and values stand for so many tokens a side
    # Chance that a branch of the last block is left out for a frame in training; from 0 at the
    # first it rises linearly from block to block.
    drop_path_rate: float = 0.1

    def __post_init__(self):
        fields = ("embed_dims", "num_heads", "depths", "mlp_ratios", "reductions")
        for name in fields:
            if len(values := getattr(self, name)) != 4:
                raise ValueError(f"a backbone has four stages: {name} {values} needs four numbers")
        for stage, (heads, size) in enumerate(zip(self.num_heads, self.embed_dims, strict=True)):
            check_divides("num_heads", heads, f"the width of stage {stage}", size)
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(
                f"drop_path_rate must be at least 0 and less than 1, not {self.drop_path_rate}"
            )

    def check_side(self, pixels: int) -> None:
        """Raises ValueError where maps of such frames leave nothing when they are reduced."""
        for stage, reduction in enumerate(self.reductions):
            if (side := -(-pixels // (4 << stage))) < reduction:
                raise ValueError(
                    f"frames of {pixels} pixels have maps of {side} in stage {stage} of the "
                    f"backbone, which pvt.reductions {reduction} leaves nothing of: give larger "
                    "frames or less reduction"
                )


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """A ResNet; defaults are ResNet-50."""

    block: str = "bottleneck"  # or 'basic', ResNet-18's and -34's
    depths: tuple[int, ...] = (3, 4, 6, 3)  # blocks per stage
    planes: tuple[int, ...] = (64, 128, 256, 512)  # of the 3x3 convolutions, per stage
    strides: tuple[int, ...] = (1, 2, 2, 2)  # of each stage's first block
    # Of each stage's 3x3 convolutions, block by block; the last one goes on for all that follow.
    dilations: tuple[tuple[int, ...], ...] = ((1,), (1,), (1,), (1,))
    stem: int = 64  # channels of the first convolution
    deep_stem: bool = False  # three 3x3 convolutions, the last twice as wide; not one of 7x7
    input_channels: int = 3

    def __post_init__(self):
        if self.block not in ("bottleneck", "basic"):
            raise ValueError(f"block must be 'bottleneck' or 'basic', not {self.block!r}")
        for name in ("depths", "planes", "strides", "dilations"):
            if len(numbers := getattr(self, name)) != 4 or not all(numbers):
                raise ValueError(f"{name} must be four, one for each stage, not {numbers!r}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return tuple((4 if self.block == "bottleneck" else 1) * planes for planes in self.planes)


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """The audio encoder; defaults are VGGish."""

    # 3x3 convolutions per block, each block followed by 2x2 max pooling.
    blocks: tuple[tuple[int, ...], ...] = ((64,), (128,), (256, 256), (512, 512))
    fully_connected: tuple[int, ...] = (4096, 4096, 128)  # the last is the embedding's width
    channels: int = 1  # of sound: mono, or 2 for left and right

    def __post_init__(self):
        if self.channels not in (1, 2):
            raise ValueError(f"audio channels must be 1 or 2, not {self.channels}")


def from_dict(cls: type[Sizes], values: Mapping[str, Any], prefix: str = "") -> Sizes:
    """Builds a dataclass of sizes from nested plain dicts; lists become tuples.

    Raises:
      ValueError: for a key that does not exist, naming it.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            raise ValueError(
                f"unknown key '{prefix}{key}' of the model's configuration; known are "
                + ", ".join(fields)
            )
        if dataclasses.is_dataclass(fields[key].type) and isinstance(value, Mapping):
            value = from_dict(fields[key].type, value, f"{prefix}{key}.")
        arguments[key] = _frozen(value)
    return cls(**arguments)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
