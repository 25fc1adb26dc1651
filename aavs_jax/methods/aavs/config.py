"""Sizes of AAVS: frozen, hashable values. The defaults are the paper's binary network."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from aavs_jax.methods.parts.sizes import AudioConfig, SwinConfig, check_divides, from_dict

GROUPS = 32  # of every GroupNorm; fixed by Mask2Former


@dataclasses.dataclass(frozen=True)
class AAVSConfig:
    """The whole network; defaults are the paper's binary one (S4, MS3, stage one of AVSS)."""

    task: str = "binary"  # 'binary' or 'semantic': decides how the decoder-side adapters are joined
    num_classes: int = 2  # K, background included
    num_queries: int = 30  # Q
    backbone: SwinConfig = SwinConfig()
    audio: AudioConfig = AudioConfig()
    feature_size: int = 256  # C, everywhere behind the backbone
    num_heads: int = 8  # in the pixel decoder and in the decoder
    encoder_layers: int = 6  # deformable attention layers of the pixel decoder
    encoder_ffn: int = 1024
    decoder_layers: int = 9
    decoder_ffn: int = 2048
    audio_hidden: int = 512  # hidden width of the MLP from the audio embedding to C
    prior: bool = False  # told where it sounds: mask fusion, audio-aware keys, first mask
    # How the key vectors follow the prior: in 'steps', silent up to 0.4 and sounding from 0.6, or
    # 'linear' between these and 0.5; the same at 0, 0.5 and 1, and with a gradient.
    prior_keys: str = "steps"
    dtype: str = "float32"  # or 'bfloat16', of matrix products and convolutions only

    def __post_init__(self):
        if self.task not in ("binary", "semantic"):
            raise ValueError(f"task must be 'binary' or 'semantic', not {self.task!r}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', not {self.dtype!r}")
        if self.prior_keys not in ("steps", "linear"):
            raise ValueError(f"prior_keys must be 'steps' or 'linear', not {self.prior_keys!r}")
        check_divides("num_heads", self.num_heads, "feature_size", self.feature_size)
        check_divides("the number of GroupNorm groups,", GROUPS, "feature_size", self.feature_size)

    @property
    def published_side(self) -> int:
        """Pixels of the frames that the published files were trained on."""
        return 384

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AAVSConfig":
        """Builds it from nested plain dicts, see `sizes.from_dict`."""
        return from_dict(cls, values)


# Of each task the paper's network: 114 M parameters and VGGish.
PAPER = {
    "binary": AAVSConfig(),
    "semantic": AAVSConfig(task="semantic", num_queries=100),
}
# The same network, 2 M parameters, which 2 cores train in minutes; its audio encoder trains along.
SMALL = AAVSConfig(
    num_queries=10,
    feature_size=64,
    num_heads=4,
    encoder_layers=1,
    encoder_ffn=256,
    decoder_layers=3,
    decoder_ffn=256,
    audio_hidden=128,
    backbone=SwinConfig(
        embed_dim=32,
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 4, 8),
        window_size=4,
        drop_path_rate=0.0,
    ),
    audio=AudioConfig(blocks=((16,), (32,), (64,), (64,)), fully_connected=(128,)),
)


# What cards, which may come from strangers, are held against.
TITLE = "AAVS"
SIZES = AAVSConfig
