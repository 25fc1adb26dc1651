"""The engine: whose names these are, exhaustive accounting, and the way back."""

import dataclasses
import hashlib
import re

import ml_dtypes
import numpy as np
import pytest

from aavs_jax.convert import engine, sizes
from aavs_jax.convert.formats import FORMATS
from aavs_jax.convert.recognising import normal_names, recognise
from aavs_jax.errors import UserError

SWIN = {
    "backbone": {
        "embed_dim": 4,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 2,
        "mlp_ratio": 2.0,
    }
}
SOUND = {"audio": {"blocks": [[2], [3, 4]], "fully_connected": [5, 6]}}


@dataclasses.dataclass
class Fake:
    value: np.ndarray
    reads: int = 0

    @property
    def shape(self):
        return self.value.shape

    @property
    def dtype(self):
        return self.value.dtype

    def read(self):
        self.reads += 1
        return self.value

    def release(self):
        pass


def random(wanted):
    rng = np.random.default_rng(0)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in wanted.items()}


@pytest.fixture(scope="module")
def swin_wanted():
    return sizes.wanted("swin", SWIN)


@pytest.fixture
def swin(swin_wanted):
    """A Swin of Microsoft's release: no output norms."""
    tensors, _ = engine.to_theirs(FORMATS["swin_microsoft"], random(swin_wanted), {}, {})
    return tensors


@pytest.fixture
def sound():
    tensors, _ = engine.to_theirs(FORMATS["vggish"], random(sizes.wanted("vggish", SOUND)), {}, {})
    return tensors


def read(tensors, allow=(), **options):
    """`to_ours` of a small VGGish, whatever is in the file."""
    fakes = {name: Fake(value) for name, value in tensors.items()}
    wanted = sizes.wanted("vggish", SOUND)
    return engine.to_ours(FORMATS["vggish"], fakes, wanted, allow, **options)


def suggestion(error) -> str:
    """The pattern that an error says to allow."""
    return re.search(r"--allow='(.*)'$", str(error.value))[1]


# ---------------------------------------------------------------------------------- recognising


@pytest.mark.parametrize("name", FORMATS)
def test_recognises_what_it_writes(name, wanted_of):
    format = FORMATS[name]
    tensors, _ = engine.to_theirs(format, random(wanted_of(format)), {}, {})
    assert recognise(tensors) is format
    if format.kind:
        wrapped = {f"net.inner.{tensor}": tensor for tensor in tensors}
        assert recognise(wrapped) is format
        assert normal_names(format, wrapped) == wrapped


STRANGERS = {
    "COMBO": [
        "backbone.patch_embed.proj.weight",
        "backbone.layers.0.blocks.0.attn.qkv.weight",
        "backbone.layers.0.downsample.norm.weight",
        "sem_seg_head.predictor.query_feat.weight",
    ],
    "EASE": ["network.encoder.blocks.0.weight", "criterion.empty_weight"],
    "MaskFormer": [
        "model.pixel_level_module.encoder.model.embeddings.norm.weight",
        "model.pixel_level_module.decoder.fpn.stem.0.weight",
        "model.transformer_module.queries_embedder.weight",
    ],
    "another backbone": [
        "model.pixel_level_module.encoder.embedder.embedder.convolution.weight",
        "model.transformer_module.queries_embedder.weight",
    ],
    "Swin V2": [
        "patch_embed.proj.weight",
        "layers.0.blocks.0.attn.qkv.weight",
        "layers.0.blocks.0.attn.logit_scale",
        "layers.0.downsample.norm.weight",
    ],
    "SAM": ["image_encoder.neck.0.weight", "mask_decoder.iou_token.weight"],
    "torchvision's Swin": ["features.0.0.weight", "features.1.0.attn.qkv.weight"],
    "pyramid": ["patch_embed1.proj.weight", "block1.0.norm1.weight"],
    "plain vision transformer": ["cls_token", "blocks.0.attn.qkv.weight"],
    "PCA": ["pca_eigen_vectors", "pca_means"],
    "OneFormer": ["model.task_encoder.task_mlp.layers.0.0.weight"],
}


@pytest.mark.parametrize("title", STRANGERS)
def test_strangers_are_named(title):
    with pytest.raises(UserError, match=f"this is .*{title}.*, which no network here takes"):
        recognise(STRANGERS[title])


def test_the_unknown_and_the_empty():
    with pytest.raises(UserError, match=r"2 tensors \(such as a.weight, b.weight\).*Mask2Former"):
        recognise(["b.weight", "a.weight"])


def test_one_tensor_under_two_names():
    names = ["class_predictor.bias", "model.class_predictor.bias", "model.model.x"]
    with pytest.raises(UserError, match="class_predictor.bias and model.class_predictor.bias"):
        normal_names(FORMATS["aavs"], names)


# ---------------------------------------------------------------------------------- accounting


def test_fates(sound):
    sound["pproc.pca_means"] = np.arange(3)
    bar = type(
        "Bar", (), {"done": 0, "update": lambda self, n: setattr(self, "done", self.done + n)}
    )()
    parameters, left_over, fates = read(sound, progress=bar)
    assert bar.done == len(sound)
    by_name = {fate.theirs: fate for fate in fates}
    mapped, other = by_name["features.5.weight"], by_name["pproc.pca_means"]
    assert mapped == engine.Fate(
        theirs="features.5.weight",
        ours=("audio_encoder/blocks/1/1/kernel",),
        shape=(4, 3, 3, 3),
        our_shapes=((3, 3, 3, 4),),
        dtype="float32",
        what="mapped",
        digest=hashlib.sha256(sound["features.5.weight"].tobytes()).hexdigest()[:12],
    )
    assert other.what == "left over" and "post-processing" in other.reason and not other.ours
    np.testing.assert_array_equal(left_over["pproc.pca_means"], np.arange(3))
    # Of their own: files may be closed, and arrays of files may be read-only.
    assert all(array.flags.owndata and array.flags.writeable for array in parameters.values())


def test_what_has_no_place(sound):
    sound["speaker.weight"] = np.ones((2, 2), np.float32)
    with pytest.raises(UserError, match="speaker.weight has no place") as error:
        read(sound)
    parameters, left_over, fates = read(sound, [suggestion(error)])
    assert [f.what for f in fates if f.theirs == "speaker.weight"] == ["left over"]
    back, _ = engine.to_theirs(FORMATS["vggish"], parameters, left_over, {})
    assert back["speaker.weight"].tobytes() == sound["speaker.weight"].tobytes()


def test_what_is_missing(sound):
    del sound["features.3.bias"]
    with pytest.raises(UserError, match=r"is missing \(features.3.bias is not in") as error:
        read(sound)
    for pattern in (suggestion(error), "features.*bias"):
        parameters, _, fates = read(sound, [pattern])
        assert "audio_encoder/blocks/1/0/bias" not in parameters
        new = next(fate for fate in fates if fate.what == "new")
        assert new.ours == ("audio_encoder/blocks/1/0/bias",) and new.our_shapes == ((3,),)


@pytest.mark.parametrize(
    "value, reason",
    [
        (np.zeros((9, 2), np.float32), "is 9x2 where 5x1536 is needed"),
        (np.zeros((), np.float32), "is a single number where"),
        (np.zeros((5, 1536, 1), np.float32), "is 5x1536x1 where"),
        (np.zeros((5, 1536), np.int8), "is int8"),
        (np.zeros((5, 1536), np.complex64), "is complex64"),
    ],
)
def test_what_does_not_fit(sound, value, reason):
    sound["embeddings.0.weight"] = value
    with pytest.raises(UserError, match=f"embeddings.0.weight {reason}") as error:
        read(sound)
    parameters, left_over, fates = read(sound, [suggestion(error)])
    path = "audio_encoder/fully_connected/0/kernel"
    assert path not in parameters and left_over["embeddings.0.weight"].dtype == value.dtype
    new = next(fate for fate in fates if fate.what == "new")
    assert new.ours == (path,) and reason in new.reason


def test_doubles_are_to_be_saved_as_float32(sound):
    """Nobody means to leave out a weight because of its type."""
    sound["embeddings.0.weight"] = np.zeros((5, 1536))
    with pytest.raises(UserError, match="weight is float64.*; save such weights as float32$"):
        read(sound)
    _, left_over, _ = read(sound, [r"embeddings\.0\.weight"])
    assert left_over["embeddings.0.weight"].dtype == np.float64


def test_all_that_is_wrong_is_counted(sound):
    del sound["features.3.bias"]
    fakes = {
        name: Fake(value) for name, value in (sound | {"a": np.ones(1), "b": np.ones(1)}).items()
    }
    with pytest.raises(UserError, match="2 more, such as b"):
        engine.to_ours(FORMATS["vggish"], fakes, sizes.wanted("vggish", SOUND))
    assert not any(fake.reads for fake in fakes.values())  # nothing is read for nothing


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(sound, value):
    sound["features.0.bias"][1] = value
    with pytest.raises(UserError, match="features.0.bias holds NaN") as error:
        read(sound)
    parameters, _, fates = read(sound, [suggestion(error)])
    np.testing.assert_array_equal(
        parameters["audio_encoder/blocks/0/0/bias"], sound["features.0.bias"]
    )
    assert [f.reason for f in fates if f.theirs == "features.0.bias"] == [
        "holds NaN or infinite numbers"
    ]


@pytest.mark.parametrize("text", ["*", "(?P<a"])
def test_a_pattern_that_is_none(sound, text):
    with pytest.raises(UserError, match="--allow='.* is no regular expression") as error:
        read(sound, [text])
    assert text in str(error.value)


def test_what_patterns_allow():
    allowed = engine.allowance(["a.*", "b"])
    assert allowed("abc") and allowed("x", "b") and not allowed("bc", "xa")
    assert not engine.allowance([])("")


def test_patterns_match_whole_names(sound):
    sound["speaker.weight"] = np.ones(2, np.float32)
    with pytest.raises(UserError, match="speaker.weight has no place"):
        read(sound, ["speaker"])


def test_output_norms_may_be_absent(swin, swin_wanted):
    format = FORMATS["swin_microsoft"]
    fakes = {name: Fake(value) for name, value in swin.items()}
    parameters, _, fates = engine.to_ours(format, fakes, swin_wanted)
    new = {path for fate in fates if fate.what == "new" for path in fate.ours}
    assert new == {p for p in swin_wanted if "output_norm" in p} and len(new) == 8
    assert new | set(parameters) == set(swin_wanted)


# -------------------------------------------------------------------------------- the way back


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_widened_and_come_back(sound, dtype):
    halves = {name: value.astype(dtype) for name, value in sound.items()}
    parameters, _, fates = read(halves)
    stored_as = {fate.theirs: fate.dtype for fate in fates}
    assert set(stored_as.values()) == {np.dtype(dtype).name}
    path = "audio_encoder/blocks/0/0/bias"
    np.testing.assert_array_equal(parameters[path], halves["features.0.bias"].astype(np.float32))
    back, _ = engine.to_theirs(FORMATS["vggish"], parameters, {}, stored_as)
    assert all(back[name].tobytes() == value.tobytes() for name, value in halves.items())

    # Trained since: what half a float cannot hold is not rounded.
    parameters[path] = parameters[path] + np.float32(1e-6)
    back, _ = engine.to_theirs(FORMATS["vggish"], parameters, {}, stored_as)
    assert back["features.0.bias"].dtype == np.float32
    np.testing.assert_array_equal(back["features.0.bias"], parameters[path])


def test_left_over_finds_its_place_in_another_format(swin, swin_wanted):
    swin |= {"norm.weight": np.full(32, 2, np.float32), "norm.bias": np.full(32, 3, np.float32)}
    swin["head.weight"] = np.ones((5, 32), np.float32)
    swin["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((4, 4), int)
    fakes = {name: Fake(value) for name, value in swin.items()}
    parameters, left_over, _ = engine.to_ours(FORMATS["swin_microsoft"], fakes, swin_wanted)
    tensors, fates = engine.to_theirs(
        FORMATS["swin_transformers"], parameters, left_over, {}, complete=True
    )
    assert tensors["layernorm.weight"][0] == 2 and tensors["layernorm.bias"][0] == 3
    behind = {fate.theirs for fate in fates if fate.what == "left behind"}
    assert behind == {"head.weight", "layers.0.blocks.0.attn.relative_position_index"}
    assert behind.isdisjoint(tensors)
    assert {fate.theirs for fate in fates} == set(tensors) | behind


def test_what_strict_loaders_ask_for():
    network = SWIN | {"num_classes": 3}
    parameters = random(sizes.wanted("mask2former", network))
    format = FORMATS["mask2former"]
    plain, _ = engine.to_theirs(format, parameters, {}, {})
    whole, fates = engine.to_theirs(format, parameters, {}, {}, complete=True)
    made = {fate.theirs for fate in fates if fate.what == "new"}
    assert set(whole) - set(plain) == made and len(made) == 3
    np.testing.assert_allclose(whole["criterion.empty_weight"], [1, 1, 1, 0.1])
    # What was there is not made anew.
    kept = {"criterion.empty_weight": np.full(4, 7, np.float32)}
    whole, _ = engine.to_theirs(format, parameters, kept, {}, complete=True)
    assert whole["criterion.empty_weight"][0] == 7


def test_parameters_without_a_place_are_left_behind():
    parameters = random(sizes.wanted("aavs", SWIN))
    tensors, fates = engine.to_theirs(FORMATS["mask2former"], parameters, {}, {})
    behind = {path for fate in fates if fate.what == "left behind" for path in fate.ours}
    expected = {p for p in parameters if "adapter" in p or p.startswith("audio_proj")}
    assert behind == expected and not any("adapt_" in name for name in tensors if "swin" in name)
