"""`aavs_jax.load`: a folder is enough, and it says what the run said."""

import io

import numpy as np
import pytest
from PIL import Image

import aavs_jax
from aavs_jax.errors import UserError
from aavs_jax.methods.telling import prior_mask
from data_pipelines.facts import avsbench
from data_pipelines.loading.decoding import decode_frame
from data_pipelines.prepared.source import heard, open_source


@pytest.fixture(scope="module")
def clip(tiny_run):
    """(name, frames, sound) of a clip of the test split, as they are stored."""
    (data_dir,) = (tiny_run[0].parent / "data").glob("audible_shapes-*")
    source = open_source(data_dir, "test")
    index = next(i for i, clip in enumerate(source.clips) if not clip.still)
    record, found = source[index], source.clips[index]
    frames = [np.asarray(Image.open(io.BytesIO(frame))) for frame in record["frames"]]
    return found, np.stack(frames), heard(found, record["waveform"], 1)


def test_a_stage_says_what_it_wrote_as_masks(tiny_run, clip):
    found, frames, sound = clip
    network = aavs_jax.load(tiny_run[0] / "localise" / "all")
    assert network.card.classes == ("background", "sounding") and network.before is None
    classes = np.asarray(network.predict(frames, sound).classes[0])
    masks = tiny_run[0] / "localise" / "masks"
    for second, predicted in enumerate(classes):
        path = avsbench.mask_path(masks, found.subset, found.uid, second)
        np.testing.assert_array_equal(predicted * 255, np.asarray(Image.open(path)))


def test_a_run_is_both_stages_and_gives_masks_of_the_frames_size(tiny_run, clip):
    _, frames, sound = clip
    network = aavs_jax.load(tiny_run[0])
    assert network.card.network["task"] == "semantic"
    assert network.before.card.network["task"] == "binary"
    wide = np.stack([np.asarray(Image.fromarray(frame).resize((80, 48))) for frame in frames])
    masks = network(wide, sound[:, 0])
    assert masks.shape == wide.shape[:3] and masks.dtype == np.uint8
    assert masks.max() < len(network.card.classes)
    # Frames of another size are seen as the loader shows them, and not otherwise.
    buffers = [io.BytesIO() for _ in wide]
    for frame, buffer in zip(wide, buffers, strict=True):
        Image.fromarray(frame).save(buffer, "png")
    shown = np.stack([decode_frame(buffer.getvalue(), 32) for buffer in buffers])
    maps = [network.before.predict(each, sound).maps["foreground"] for each in (wide, shown)]
    np.testing.assert_array_equal(*maps)
    # Stereo is heard as its mean, and what stage one says may be given.
    stereo = np.repeat(sound, 2, axis=1)
    prior = prior_mask(network.before.predict(wide, sound), network.card.told["kind"])[0]
    np.testing.assert_array_equal(network(wide, stereo, prior), masks)
    given, own = (network.predict(wide, sound, each).maps for each in (prior, None))
    assert given.keys() == own.keys() and given
    for name in own:  # each told in both views
        np.testing.assert_array_equal(given[name], own[name])


def test_what_is_no_clip_is_a_sentence(tiny_run, clip):
    _, frames, sound = clip
    network = aavs_jax.load(tiny_run[0] / "localise" / "all")
    with pytest.raises(UserError, match=r"frames are float64 .* give uint8 \[T,H,W,3\]"):
        network(frames / 255, sound)
    with pytest.raises(UserError, match=r"a waveform of shape \[2, 3, 4\] is no sound"):
        network(frames, np.zeros((2, 3, 4)))
    alone = aavs_jax.load(tiny_run[0] / "understand" / "all")
    with pytest.raises(UserError, match="is told where it sounds: give prior_mask, or load the"):
        alone(frames, sound)
    with pytest.raises(UserError, match="there is no folder of weights"):
        aavs_jax.load(tiny_run[0] / "nothing")
