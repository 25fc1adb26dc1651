"""The audio encoder against the same network in PyTorch, in the order VGGish flattens."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from aavs_jax.methods.functional import initial_parameters
from aavs_jax.methods.parts.sizes import AudioConfig
from aavs_jax.methods.parts.vggish import AudioEncoder

CONFIG = AudioConfig(blocks=((3,), (4, 5), (6,)), fully_connected=(10, 7))


def torch_vggish(config: AudioConfig, parameters: dict[str, np.ndarray], examples: np.ndarray):
    """Channels first, as the published VGGish for PyTorch; turned before it is flattened."""
    x = torch.from_numpy(examples)
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    for b, widths in enumerate(config.blocks):
        for c in range(len(widths)):
            kernel = parameters[f"blocks/{b}/{c}/kernel"].transpose(3, 2, 0, 1).copy()
            bias = torch.from_numpy(parameters[f"blocks/{b}/{c}/bias"])
            x = torch.conv2d(x, torch.from_numpy(kernel), bias, padding=1).relu()
        x = torch.max_pool2d(x, 2, 2)
    time_frequency_channel = x.permute(0, 2, 3, 1)
    x = time_frequency_channel.flatten(1)
    for layer in range(len(config.fully_connected)):
        kernel = torch.from_numpy(parameters[f"fully_connected/{layer}/kernel"])
        x = (x @ kernel + torch.from_numpy(parameters[f"fully_connected/{layer}/bias"])).relu()
    return x.numpy()


@pytest.mark.parametrize("channels", [1, 2])
def test_is_vggish(with_values, channels):
    config = dataclasses.replace(CONFIG, channels=channels)
    model = nnx.eval_shape(lambda: AudioEncoder(config, "float32"))
    assert model.blocks[0][0].kernel.shape == (3, 3, channels, 3)
    rng = np.random.default_rng(0)
    parameters = {
        path: array if array.any() else rng.normal(size=array.shape).astype(np.float32)
        for path, array in initial_parameters(model, 0).items()
    }
    shape = (2, 96, 64) if channels == 1 else (2, 96, 64, 2)
    examples = rng.normal(size=shape).astype(np.float32)
    graphdef, values = with_values(model, parameters)
    ours = jax.jit(lambda v, x: nnx.merge(graphdef, v)(x))(values, examples)
    theirs = torch_vggish(config, parameters, examples)
    assert theirs.shape == (2, 7) and theirs.any()
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("halvings, size", [(4, 6 * 4 * 512), (2, 24 * 16 * 256)])
def test_flattened_size(halvings, size):
    config = AudioConfig(blocks=AudioConfig().blocks[:halvings])
    if halvings == 2:
        config = AudioConfig(blocks=((128,), (256,)))
    model = nnx.eval_shape(lambda: AudioEncoder(config, "float32"))
    assert model.fully_connected[0].kernel.shape == (size, 4096)


def test_left_and_right_differ(network, inputs):
    """The whole network with two channels: what is heard where makes a difference."""
    tiny = network(audio=dataclasses.replace(network().config.audio, channels=2))
    frames, audio, prior = inputs(2, 64, 64)
    stereo = np.stack([audio, np.zeros_like(audio)], axis=-1)
    one, other = (
        tiny.jitted(tiny.values, frames, sound, prior)["class_logits"]
        for sound in (stereo, stereo[..., ::-1])
    )
    assert one.shape == other.shape and np.abs(one - other).max() > 1e-4


@pytest.mark.parametrize("channels", [0, 3])
def test_other_numbers_of_channels_are_errors(channels):
    with pytest.raises(ValueError, match=f"audio channels must be 1 or 2, not {channels}"):
        AudioConfig(channels=channels)
