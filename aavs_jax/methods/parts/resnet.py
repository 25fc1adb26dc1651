"""ResNet (He et al., CVPR 2016), with the stride in the 3x3 convolution, as torchvision has it.

Of DeepLab's kind, too: a stem of three 3x3 convolutions, and stages that dilate where they do not
halve the map.
"""

import jax
from flax import nnx

from aavs_jax.methods.parts.batch_norm import BatchNorm
from aavs_jax.methods.parts.convolution import Convolution, he_fan_out, max_pool
from aavs_jax.methods.parts.sizes import ResNetConfig


class ResNet(nnx.Module):
    """A stem and four stages of residual blocks; gives one map per stage.

    A new instance holds zeros; `functional.py` draws initial values.
    """

    def __init__(self, config: ResNetConfig, dtype: str = "float32"):
        self.stem = nnx.List()
        widths = (config.stem, config.stem, 2 * config.stem) if config.deep_stem else (config.stem,)
        inputs = config.input_channels
        for index, width in enumerate(widths):
            window, stride = 3 if config.deep_stem else 7, 1 if index else 2
            self.stem.append(ConvNorm(inputs, width, window, stride=stride, dtype=dtype))
            inputs = width
        self.stages = nnx.List()
        for stage, depth in enumerate(config.depths):
            dilations, blocks = config.dilations[stage], nnx.List()
            for index in range(depth):
                block = Block(
                    inputs,
                    config.planes[stage],
                    bottleneck=config.block == "bottleneck",
                    stride=1 if index else config.strides[stage],
                    dilation=dilations[min(index, len(dilations) - 1)],
                    dtype=dtype,
                )
                blocks.append(block)
                inputs = config.widths[stage]
            self.stages.append(blocks)

    def __call__(self, frames: jax.Array, training: bool) -> list[jax.Array]:
        """Normalised frames [N,H,W,input_channels] -> float32 maps [N,h,w,C] of the four stages.

        Args:
          frames: float, any H and W.
          training: batch norms take the batch's statistics, and move their running ones.

        Returns:
          At strides 4, 8, 16 and 32, less where a stage's stride is 1; of `config.widths` channels.
        """
        x = self.enter(frames, training)
        maps = []
        for blocks in self.stages:
            for block in blocks:
                x = block(x, training)
            maps.append(x)
        return maps

    def enter(self, frames: jax.Array, training: bool) -> jax.Array:
        """What the first stage gets: the stem's map, pooled, at stride 4."""
        x = frames
        for layer in self.stem:
            x = jax.nn.relu(layer(x, training))
        return max_pool(x)


class Block(nnx.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 to four times the width, added to the block's input.

    Where the sum would not fit, the input goes through a 1x1 convolution.
    """

    def __init__(
        self, inputs: int, planes: int, *, bottleneck: bool, stride: int, dilation: int, dtype: str
    ):
        self.layers = nnx.List()
        strided = {"stride": stride, "dilation": dilation, "dtype": dtype}
        if bottleneck:
            outputs = 4 * planes
            self.layers.append(ConvNorm(inputs, planes, 1, dtype=dtype))
            self.layers.append(ConvNorm(planes, planes, 3, **strided))
            self.layers.append(ConvNorm(planes, outputs, 1, dtype=dtype))
        else:
            outputs = planes
            self.layers.append(ConvNorm(inputs, planes, 3, **strided))
            self.layers.append(ConvNorm(planes, planes, 3, dilation=dilation, dtype=dtype))
        fits = stride == 1 and inputs == outputs
        self.shortcut = None if fits else ConvNorm(inputs, outputs, 1, stride=stride, dtype=dtype)

    def __call__(self, x: jax.Array, training: bool) -> jax.Array:
        """[N,h,w,inputs] -> float32 [N,ceil(h/stride),ceil(w/stride),outputs]."""
        residual = x if self.shortcut is None else self.shortcut(x, training)
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x, training))
        return jax.nn.relu(self.layers[-1](x, training) + residual)


class ConvNorm(nnx.Module):
    """A convolution without bias, and batch norm."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        window: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        dtype: str = "float32",
    ):
        self.conv = Convolution(
            inputs,
            outputs,
            window,
            kernel_init=he_fan_out(window, outputs),
            bias_init=None,
            stride=stride,
            dilation=dilation,
            dtype=dtype,
        )
        self.norm = BatchNorm(outputs)

    def __call__(self, x: jax.Array, training: bool) -> jax.Array:
        """[N,h,w,inputs] -> float32 [N,ceil(h/stride),ceil(w/stride),outputs]."""
        return self.norm(self.conv(x), training)
