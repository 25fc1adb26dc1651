"""The audio encoder against the same network in PyTorch, in the order VGGish flattens."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from aavs_jax.models.audio import AudioEncoder
from aavs_jax.models.config import AudioConfig
from aavs_jax.models.init import initial_parameters

CONFIG = AudioConfig(blocks=((3,), (4, 5), (6,)), fully_connected=(10, 7))


def torch_vggish(config: AudioConfig, parameters: dict[str, np.ndarray], examples: np.ndarray):
    """Channels first, as the published VGGish for PyTorch; turned before it is flattened."""
    x = torch.from_numpy(examples)[:, None]
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


def test_is_vggish(with_values):
    model = nnx.eval_shape(lambda: AudioEncoder(CONFIG, "float32"))
    rng = np.random.default_rng(0)
    parameters = {
        path: array if array.any() else rng.normal(size=array.shape).astype(np.float32)
        for path, array in initial_parameters(model, 0).items()
    }
    examples = rng.normal(size=(2, 96, 64)).astype(np.float32)
    graphdef, values = with_values(model, parameters)
    ours = jax.jit(lambda v, x: nnx.merge(graphdef, v)(x))(values, examples)
    theirs = torch_vggish(CONFIG, parameters, examples)
    assert theirs.shape == (2, 7) and theirs.any()
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("halvings, size", [(4, 6 * 4 * 512), (2, 24 * 16 * 256)])
def test_flattened_size(halvings, size):
    config = AudioConfig(blocks=AudioConfig().blocks[:halvings])
    if halvings == 2:
        config = AudioConfig(blocks=((128,), (256,)))
    model = nnx.eval_shape(lambda: AudioEncoder(config, "float32"))
    assert model.fully_connected[0].kernel.shape == (size, 4096)
