"""The backbone against the Swin of PyPI's transformers, at sizes the golden files leave out."""

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file

from aavs_jax.methods.parts.sizes import SwinConfig
from aavs_jax.methods.parts.swin import Swin

PREFIX = "model.model.pixel_level_module.encoder."
SIZES = {"embed_dim": 12, "depths": (2, 1, 2, 1), "num_heads": (1, 2, 3, 4), "window_size": 3}


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    config = transformers.SwinConfig(
        **{name: list(v) if isinstance(v, tuple) else v for name, v in SIZES.items()},
        out_features=["stage1", "stage2", "stage3", "stage4"],
        initializer_range=0.2,
    )
    model = transformers.SwinBackbone(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or "relative_position" in name:  # by default all alike
                parameter += 0.3 * torch.randn(parameter.shape)
    return model


# Maps that no window divides, and merging of odd maps: 84 -> 21 x 13 -> 11 x 7 -> 6 x 4 -> 3 x 2.
@pytest.mark.parametrize("height, width", [(84, 50), (96, 96)])
def test_maps(reference, checkpoint_names, tmp_path, height, width):
    reference.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    given = checkpoint_names.to_parameters(
        {PREFIX + name.removeprefix("swin."): tensor for name, tensor in tensors.items()}
    )
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Swin(SwinConfig(**SIZES), "float32")))
    flat, structure = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))
    values = []
    for path, leaf in flat:
        name = "/".join(["backbone", *(str(key.key) for key in path)])
        # With all weights zero the adapters are the identity.
        values.append(np.zeros(leaf.shape, np.float32) if "adapter" in name else given.pop(name))
    assert not given

    frames = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(lambda v, x: nnx.merge(graphdef, v)(x))(
            jax.tree.unflatten(structure, values), frames
        )
    with torch.no_grad():
        theirs = reference(torch.from_numpy(frames).permute(0, 3, 1, 2)).feature_maps
    for x, y in zip(ours, theirs, strict=True):
        y = y.permute(0, 2, 3, 1).numpy()
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, atol=1e-4 * np.abs(y).max())
