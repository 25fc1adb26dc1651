"""The pixel decoder and the whole network against the Mask2Former of PyPI's transformers.

At sizes the golden files leave out: 64 channels, so that a group of GroupNorm holds two; maps no
window and no stride divides; one query and many; one frame and three. AAVS's own additions are in
`torch_aavs.py`, hooked into transformers' modules, so whole networks can be compared without
switching anything off: both forms of adapters, and the prior.

transformers computes what AAVS's definition says throughout, `torch_aavs.py` names two settings.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import abstract_model
from aavs_jax.methods.parts.sizes import AudioConfig, SwinConfig

TOLERANCE = 1e-4  # of the largest value
SWIN = {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 3}
SIZES = {
    "swin": SWIN,
    "feature_size": 64,
    "mask_feature_size": 64,
    "hidden_dim": 64,
    "num_attention_heads": 4,
    "encoder_layers": 2,
    "encoder_feedforward_dim": 48,
    "decoder_layers": 5,  # transformers counts one more; the fourth returns to the first level
    "dim_feedforward": 80,
}
AUDIO_HIDDEN = 16

# Form, queries, frames, height, width. The smaller maps take the pixel decoder's dense form of
# deformable attention, the larger ones its gathering form.
CASES = [
    pytest.param(("avs", 1, 3, 72, 104), id="one_query", marks=pytest.mark.slow),
    pytest.param(("avs", 9, 1, 100, 138), id="one_frame"),
    pytest.param(("avss", 9, 3, 72, 104), id="prior"),
    pytest.param(("avss", 1, 1, 100, 138), id="prior_one_of_each", marks=pytest.mark.slow),
]


def assert_close(ours, theirs) -> None:
    """Channels-last against channels-first where there are maps of channels."""
    ours, theirs = np.asarray(ours), theirs.numpy()
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


def channels_last(maps: torch.Tensor) -> torch.Tensor:
    return maps.movedim(1, -1)


@pytest.fixture(scope="module", params=CASES)
def pair(request, torch_aavs, checkpoint_names):
    """Both networks with the same weights, and inputs for them."""
    task, queries, frames, height, width = request.param
    classes = 6 if task == "avss" else 2
    sizes = SIZES | {"task": task, "num_queries": queries, "num_classes": classes}
    theirs = torch_aavs.TorchAAVS(sizes, seed=1, audio_hidden=AUDIO_HIDDEN)
    config = AAVSConfig(
        task="semantic" if task == "avss" else "binary",
        prior=task == "avss",
        num_classes=classes,
        num_queries=queries,
        backbone=SwinConfig(
            **{key: tuple(v) if isinstance(v, list) else v for key, v in SWIN.items()}
        ),
        audio=AudioConfig(blocks=((1,),), fully_connected=(128,)),  # never run: embeddings given
        feature_size=SIZES["feature_size"],
        num_heads=SIZES["num_attention_heads"],
        encoder_layers=SIZES["encoder_layers"],
        encoder_ffn=SIZES["encoder_feedforward_dim"],
        decoder_layers=SIZES["decoder_layers"] - 1,
        decoder_ffn=SIZES["dim_feedforward"],
        audio_hidden=AUDIO_HIDDEN,
    )
    given = checkpoint_names.to_parameters(theirs.checkpoint())
    graphdef, state = nnx.split(abstract_model(config))
    flat, structure = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))
    values = []
    for path, leaf in flat:
        name = "/".join(str(key.key) for key in path)
        unused = name.startswith("audio_encoder/")
        values.append(jnp.zeros(leaf.shape) if unused else jnp.asarray(given.pop(name)))
    assert not given

    rng = np.random.default_rng(2)
    prior = None
    if task == "avss":
        prior = rng.random((frames, 5, 7), np.float32)
        if frames > 1:
            prior[1] = 0  # would block everything, and so blocks nothing
    return types.SimpleNamespace(
        theirs=theirs,
        graphdef=graphdef,
        values=jax.tree.unflatten(structure, values),
        pixels=rng.normal(size=(frames, 3, height, width)).astype(np.float32),
        audio=rng.random((frames, 128), np.float32),
        prior=prior,
    )


def test_pixel_decoder(pair):
    rng = np.random.default_rng(3)
    frames, _, height, width = pair.pixels.shape
    maps = [
        rng.normal(size=(frames, -(-height // stride), -(-width // stride), 2 * stride))
        for stride in (4, 8, 16, 32)
    ]
    with torch.no_grad():
        theirs = pair.theirs.plain.model.pixel_level_module.decoder(
            [torch.from_numpy(x).movedim(-1, 1) for x in maps]
        )
    with jax.default_matmul_precision("highest"):
        levels, mask_features = jax.jit(
            lambda values, maps: nnx.merge(pair.graphdef, values).pixel_decoder(maps)
        )(pair.values, [x.astype(np.float32) for x in maps])
    for ours, level in zip(levels, theirs.multi_scale_features, strict=True):
        assert_close(ours, channels_last(level))
    assert_close(mask_features, channels_last(theirs.mask_features))


def test_whole_network(pair):
    with torch.no_grad():
        theirs = pair.theirs(pair.pixels, pair.audio, pair.prior)
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(
            lambda values, *inputs: nnx.merge(pair.graphdef, values)(*inputs, taps=True)
        )(pair.values, np.moveaxis(pair.pixels, 1, -1), pair.audio, pair.prior)
    for name, maps in (
        ("backbone", theirs.encoder_hidden_states),
        ("multi_scale", theirs.pixel_decoder_hidden_states),
    ):
        for x, y in zip(ours[name], maps, strict=True):
            assert_close(x, channels_last(y))
    assert_close(ours["mask_features"], channels_last(theirs.pixel_decoder_last_hidden_state))
    predictions = [
        *theirs.auxiliary_logits,
        {
            "class_queries_logits": theirs.class_queries_logits,
            "masks_queries_logits": theirs.masks_queries_logits,
        },
    ]
    for class_logits, mask_logits, prediction in zip(
        ours["class_logits"], ours["mask_logits"], predictions, strict=True
    ):
        assert_close(class_logits, prediction["class_queries_logits"])
        assert_close(mask_logits, prediction["masks_queries_logits"])
