"""Masks in the layouts and encodings of other tools."""

import ast
import importlib
import re
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aavs_jax import mask_pictures
from aavs_jax.errors import UserError
from aavs_jax.mask_folders import MaskWriter, ReadMasks, find_masks, mask_writers
from data_pipelines.avsbench import layout
from data_pipelines.source import Clip

PALETTE = layout.palette()
CLIPS = (
    Clip("v1s", "dog_4000_9000", 5, (0, 1, 2, 3, 4), (1,)),
    Clip("v1m", "duet_0", 5, (0, 1, 2, 3, 4), (1, 2)),
    Clip("v2", "band_0_10000", 10, tuple(range(10)), (2,)),
)
SOURCE = types.SimpleNamespace(clips=CLIPS, split="test")
FIRST_RELEASE = types.SimpleNamespace(clips=CLIPS[:2], split="test")


def save(path: Path, values=None, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8) if values is None else values, mode).save(path)
    return path


# ---- layouts

LAYOUTS = {
    "ours": (SOURCE, "{subset}/{uid}/{i}.png", 0),
    "no_subset": (SOURCE, "{uid}/{i}.png", 0),
    "ids": (SOURCE, "{subset}/{uid}/labels_semantic/{i}.png", 0),
    "colours": (SOURCE, "{subset}/{uid}/labels_rgb/{i}.png", 0),
    "first_release": (FIRST_RELEASE, "{split}/{category}/{uid}/{uid}_{i}.png", 1),
    "first_release_no_split": (FIRST_RELEASE, "{category}/{uid}/{uid}_{i}.png", 1),
    "first_release_ms3": (FIRST_RELEASE, "{split}/{uid}/{uid}_{i}.png", 1),
    "avsbench_s4": (FIRST_RELEASE, "{category}/{uid}/{uid}_{i}.png", 0),
    "avsbench_avss": (SOURCE, "{uid}/{uid}_{i}.png", 0),
    "below": (SOURCE, "my/run/{subset}/{uid}/{i}.PNG", 0),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognised_by_looking(tmp_path, name):
    source, pattern, first = LAYOUTS[name]
    expected = {}
    for clip in source.clips:
        for second in range(clip.seconds):
            words = {"subset": clip.subset, "uid": clip.uid, "i": second + first}
            file = pattern.format(**words, split="test", category="dog_barking")
            expected[clip.name, second] = save(tmp_path / file)
    # AVSBench and AVSegFormer write ten masks of every clip.
    extra = pattern.format(subset="v1m", uid="duet_0", i=7, split="test", category="dog_barking")
    save(tmp_path / extra)
    save(tmp_path / "v1s/unknown/0.png")
    (tmp_path / "readme.txt").write_text("")
    found = find_masks(tmp_path, source)
    assert {(c, t): path for c, files in found.files.items() for t, path in files.items()} == (
        expected
    )
    assert f"i from {first}" in found.layout and found.others == 2


def test_a_data_set_itself_is_read_by_its_ids(tmp_path):
    """Of two layouts in one folder one is taken."""
    for clip in CLIPS:
        for second in range(clip.seconds):
            for place in ("labels_rgb", "labels_semantic"):
                save(tmp_path / clip.name / place / f"{second}.png")
    found = find_masks(tmp_path, SOURCE)
    assert found.layout == "<clip>/labels_semantic/<i>.png, i from 0" and found.others == 20


def test_clips_of_one_name_are_told_apart_by_what_lies_above(tmp_path):
    clips = [Clip(subset, "a", 1, (0,), ()) for subset in ("v1s", "v2")]
    source = types.SimpleNamespace(clips=clips, split="test")
    for place in ("v1s", "v2", "train/v1s"):
        save(tmp_path / place / "a" / "0.png")
    found = find_masks(tmp_path, source)
    assert found.files["v1s/a"][0] == tmp_path / "v1s/a/0.png"
    assert found.files["v2/a"][0] == tmp_path / "v2/a/0.png"
    (tmp_path / "v3").symlink_to("v2")  # one folder by two names is no second one
    assert find_masks(tmp_path, source).files == found.files
    save(tmp_path / "more/v2/a/0.png")
    with pytest.raises(UserError, match="two folders of masks for v2/a, more/v2/a and v2/a"):
        find_masks(tmp_path, source)


def test_the_split_tells_masks_of_one_clip_apart(tmp_path):
    for clip in CLIPS[:2]:
        for second in range(clip.seconds):
            for place in ("test", "older", "train"):
                save(tmp_path / place / clip.uid / f"{second}.png")
    found = find_masks(tmp_path, FIRST_RELEASE)
    assert {path.parts[-3] for path in found.paths} == {"test"} and found.others == 20


def test_a_folder_called_like_a_split_may_be_of_a_class(tmp_path):
    for clip, category in zip(CLIPS[:2], ("train", "dog"), strict=True):
        for second in range(clip.seconds):
            save(tmp_path / "classes" / category / clip.uid / f"{second}.png")
            save(tmp_path / "splits/test" / category / clip.uid / f"{second}.png")
    for place in ("classes", "splits"):
        assert len(find_masks(tmp_path / place, FIRST_RELEASE).paths) == 10
    # Where splits are told apart the masks of another are not ours.
    (tmp_path / "splits/test/train").rename(tmp_path / "splits/train")
    with pytest.raises(UserError, match="5 of 10 masks of split test are missing"):
        find_masks(tmp_path / "splits", FIRST_RELEASE)


def test_the_layout_is_that_of_most_clips(tmp_path):
    for clip in CLIPS:
        for second in range(clip.seconds):
            save(tmp_path / clip.name / "labels_rgb" / f"{second}.png")
    save(tmp_path / CLIPS[0].name / "0.png")
    found = find_masks(tmp_path, SOURCE)
    assert found.layout == "<clip>/labels_rgb/<i>.png, i from 0" and found.others == 1


def test_one_mask_of_a_still_is_that_of_all_its_seconds(tmp_path):
    still, two = (Clip("vpo", uid, 3, (0, 1, 2), (1,), still=True) for uid in ("still", "two"))
    lone, own = save(tmp_path / "vpo/still/0.png"), save(tmp_path / "vpo/two/0.png")
    source = types.SimpleNamespace(clips=(still,), split="test")
    found = find_masks(tmp_path, source)
    assert found.files == {"vpo/still": dict.fromkeys(range(3), lone)} and found.others == 1
    source = types.SimpleNamespace(clips=(still, two), split="test")
    others = [save(tmp_path / f"vpo/two/{second}.png") for second in (1, 2)]
    found = find_masks(tmp_path, source)
    assert list(found.files["vpo/two"].values()) == [own, *others] and found.others == 0
    others[0].unlink()
    with pytest.raises(UserError, match="1 of 6 masks .* the first is .*two/1.png"):
        find_masks(tmp_path, source)
    clip = types.SimpleNamespace(clips=(Clip("vpo", "still", 3, (0, 1, 2), ()),), split="test")
    with pytest.raises(UserError, match="2 of 3 masks"):
        find_masks(tmp_path, clip)


def test_links_are_followed_wherever_they_lead(tmp_path):
    masks = tmp_path / "masks"
    for clip in CLIPS[:2]:
        for second in range(clip.seconds):
            save(tmp_path / "elsewhere" / clip.uid / f"{second}.png")
        masks.mkdir(exist_ok=True)
        (masks / clip.subset).symlink_to("../elsewhere")
    (tmp_path / "elsewhere/again").symlink_to("../masks")  # round and round
    found = find_masks(masks, FIRST_RELEASE)
    assert found.files["v1m/duet_0"][4] == masks / "v1m/duet_0/4.png"
    for name in ("9.png", "a.png", "b"):
        (tmp_path / "elsewhere/duet_0" / name).symlink_to("nowhere.png")
    assert find_masks(masks, FIRST_RELEASE) == found
    (masks / "v1m/duet_0/3.png").unlink()
    (masks / "v1m/duet_0/3.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match="1 of 10 masks .*v1m/duet_0/3.png"):
        find_masks(masks, FIRST_RELEASE)


def test_jpegs_and_the_numbers_are_named_where_masks_are_missing(tmp_path):
    source = types.SimpleNamespace(clips=CLIPS[:1], split="test")
    for second in range(5):
        save(tmp_path / f"dog_4000_9000/{second}.jpg")
    with pytest.raises(UserError, match="none of the 0 PNG files .*, and 5 JPEG files do not"):
        find_masks(tmp_path, source)
    save(tmp_path / "dog_4000_9000/0.png")
    with pytest.raises(UserError, match="start at 0, .* is there.: write them all, as PNG, for"):
        find_masks(tmp_path, source)
    (tmp_path / "dog_4000_9000/0.png").rename(tmp_path / "dog_4000_9000/1.png")
    for path in tmp_path.glob("*/*.jpg"):
        path.unlink()
    with pytest.raises(UserError, match="/2.png .*start at 1, .* is nowhere.: write them all, or"):
        find_masks(tmp_path, source)


def test_what_is_missing_is_named_and_counted(tmp_path):
    for clip in CLIPS[:2]:
        for second in range(clip.seconds - 1):
            save(tmp_path / clip.name / f"{second}.png")
    with pytest.raises(UserError) as error:
        find_masks(tmp_path, SOURCE)
    assert f"12 of 20 masks of split test are missing, the first is {tmp_path}/v1s/dog" in str(
        error.value
    )
    assert "dog_4000_9000/4.png" in str(error.value)
    with pytest.raises(UserError, match="none of the 0 PNG files .*such as v1s/dog_4000_9000.: "):
        find_masks(_empty(tmp_path), SOURCE)
    with pytest.raises(UserError, match="there is no folder of masks at"):
        find_masks(tmp_path / "none", SOURCE)


def _empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def test_only_labelled_seconds_are_needed(tmp_path):
    clip = Clip("clips", "a", 5, (1, 3), ())
    for second in (1, 3):
        save(tmp_path / f"clips/a/{second}.png")
    source = types.SimpleNamespace(clips=(clip,), split="test")
    save(tmp_path / "clips/a/0.png")  # or they would be counted from 1
    assert sorted(find_masks(tmp_path, source).files["clips/a"]) == [1, 3]


# ---- what is in a picture

K = 71
HARD = np.array([[0, 1], [1, 0]], np.uint8)
IDS = np.array([[0, 7], [70, 1]], np.uint8)


def with_palette(values, palette):
    image = Image.fromarray(values).convert("P")
    image.putpalette(np.asarray(palette, np.uint8).tobytes())
    return image


GREY_RAMP = np.arange(256).repeat(3).reshape(256, 3)
# picture -> kind for a binary stage, kind for a semantic one (None: an error)
PICTURES = {
    "0_255": (HARD * np.uint8(255), "grey", None),
    "0_1": (HARD, "hard", "ids"),
    "bits": (Image.fromarray(HARD * np.uint8(255)).convert("1"), "grey", None),
    "grey": (np.array([[0, 90], [200, 255]], np.uint8), "grey", None),
    "sixteen_bits": (HARD.astype(np.uint16) * np.uint16(65535), "grey", None),
    # AVSBench's scripts: convert("P") of a mask of 0 and 255.
    "grey_palette": (with_palette(HARD * np.uint8(255), GREY_RAMP), "grey", None),
    "black_and_white": (with_palette(HARD, [[0] * 3, [255] * 3]), "grey", None),
    "rgb_mask": (np.repeat(HARD[..., None] * np.uint8(255), 3, -1), "grey", None),
    # Or shades of a network that is not sure; but see IDS_FOLDER.
    "ids": (IDS, "grey", "ids"),
    "rgb_ids": (np.repeat(IDS[..., None], 3, -1), "grey", "ids"),
    "wide_ids": (IDS.astype(np.uint16), "grey", "ids"),
    "wide_0_1": (HARD.astype(np.uint16), "hard", "ids"),
    "wide_0_255": (HARD.astype(np.uint16) * np.uint16(255), None, None),
    "palette": (with_palette(IDS, PALETTE), "colours", "colours"),
    "only_class_7": (with_palette(HARD * np.uint8(7), PALETTE), "colours", "colours"),
    "own_palette": (with_palette(IDS, PALETTE[::-1]), "ids", "ids"),
    "colours": (PALETTE[IDS], "colours", "colours"),
    "unknown_colours": (np.full((2, 2, 3), (9, 200, 77), np.uint8), None, None),
    "id_above": (np.array([[0, 71], [80, 3]], np.uint8), "grey", None),
    "colour_above": (PALETTE[[[0, 71], [80, 3]]], None, None),
}
NAMES = {"grey": mask_pictures.GREY, "hard": mask_pictures.HARD, "ids": mask_pictures.IDS}
NAMES["colours"] = mask_pictures.COLOURS


@pytest.mark.parametrize("task", ["binary", "semantic"])
@pytest.mark.parametrize("name", PICTURES)
def test_what_a_picture_is_taken_for(tmp_path, name, task):
    values, *kinds = PICTURES[name]
    kind = NAMES.get(kinds[task == "semantic"])
    path = tmp_path / "0.png"
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path)
    black = save(tmp_path / "black.png")  # tells nothing
    if kind is None:
        with pytest.raises(UserError, match=str(path)):
            mask_pictures.kind_of([black, path], task, K)
        return
    assert mask_pictures.kind_of([black, path], task, K) == kind
    found, stray = mask_pictures.read(path, kind, task, 2, K)
    assert found.dtype == np.uint8 and stray == 0
    if task == "semantic":
        expected = {"only_class_7": HARD * 7}.get(name, IDS)
        expected = HARD if name in ("0_1", "wide_0_1") else expected
    elif name in ("grey", "id_above", "ids"):
        expected = values
    elif name in ("rgb_ids", "wide_ids"):
        expected = IDS if name == "rgb_ids" else 0 * IDS
    else:
        of_ids = name in ("palette", "own_palette", "colours")
        expected = 255 * ((IDS if of_ids else HARD) != 0)
    np.testing.assert_array_equal(found, expected)


def test_a_kind_is_that_of_the_whole_folder(tmp_path):
    """Silence of a network that is hardly ever sure is no mask of 1."""
    faint = save(tmp_path / "0.png", HARD)
    sure = save(tmp_path / "1.png", HARD * np.uint8(200))
    kind = mask_pictures.kind_of([faint, sure], "binary", K)
    assert kind == mask_pictures.GREY
    assert mask_pictures.read(faint, kind, "binary", 2, K)[0].max() == 1
    assert mask_pictures.kind_of([faint], "binary", K) == mask_pictures.HARD
    coloured = save(tmp_path / "2.png", PALETTE[IDS])
    with pytest.raises(UserError, match="of different kinds: .*0.png and those before .*2.png"):
        mask_pictures.kind_of([faint, coloured], "binary", K)
    with pytest.raises(UserError, match="masks before .*2.png hold .*, but .*2.png holds class"):
        mask_pictures.read(coloured, mask_pictures.GREY, "binary", 2, K)


def test_ids_and_shades(tmp_path):
    """What is dark all over is a mask of a network that is not sure, unless its folder says ids."""
    faint = save(tmp_path / "0.png", IDS)
    for task, kind in (("binary", mask_pictures.GREY), ("semantic", mask_pictures.IDS)):
        assert mask_pictures.kind_of([faint], task, K) == kind
    ids = save(tmp_path / "labels_semantic/0.png", IDS)
    assert mask_pictures.kind_of([ids], "binary", K) == mask_pictures.IDS
    found, _ = mask_pictures.read(ids, mask_pictures.IDS, "binary", 2, K)
    np.testing.assert_array_equal(found, 255 * (IDS != 0))
    palette = tmp_path / "2.png"
    with_palette(IDS, PALETTE[::-1]).save(palette)
    assert mask_pictures.kind_of([palette], "binary", K) == mask_pictures.IDS


def test_hard_masks_have_one_white(tmp_path):
    """A mask of 1 among those of 255 would count as empty; among shades it nearly is."""
    one, white = save(tmp_path / "0.png", HARD), save(tmp_path / "1.png", HARD * np.uint8(255))
    wide = save(tmp_path / "2.png", HARD.astype(np.uint16) * np.uint16(65535))
    shades = save(tmp_path / "3.png", np.array([[0, 99], [1, 255]], np.uint8))
    for paths in ([one, white], [white, white, one], [wide, one]):
        with pytest.raises(UserError, match="0.png holds 0 and 1, and .*[12].png black and white"):
            mask_pictures.kind_of(paths, "binary", K)
    for paths in ([one, white, shades], [white, wide, white], [shades, white, one]):
        assert mask_pictures.kind_of(paths, "binary", K) == mask_pictures.GREY


def test_sixteen_bits_are_scaled_alike_in_all_pictures(tmp_path):
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    for name, part in (("0.png", values), ("1.png", values[:1]), ("2.png", values[1:2])):
        path = save(tmp_path / name, part)
        grey = np.rint(part / 257)
        np.testing.assert_array_equal(mask_pictures.load(path).grey, grey)
        if part.shape == (256, 256):
            found, _ = mask_pictures.read(path, mask_pictures.GREY, "binary", 256, K)
            np.testing.assert_array_equal(found, grey)
    ids = save(tmp_path / "3.png", IDS.astype(np.uint16))
    found, _ = mask_pictures.read(ids, mask_pictures.IDS, "semantic", 2, K)
    np.testing.assert_array_equal(found, IDS)
    above = save(tmp_path / "4.png", np.full((2, 2), 300, np.uint16))
    with pytest.raises(UserError, match="4.png holds class id 300, but"):
        mask_pictures.kind_of([above], "semantic", K)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_a_mask_may_not_hide_in_the_alpha_channel(tmp_path, mode):
    image = Image.fromarray(np.full((2, 2), 255, np.uint8)).convert(mode)
    for alpha in (HARD * np.uint8(255), np.full((2, 2), 9, np.uint8)):
        image.putalpha(Image.fromarray(alpha))
        path = tmp_path / "0.png"
        image.save(path, "tiff" if mode == "PA" else "png")
        if alpha.min() == alpha.max():
            assert (mask_pictures.load(path).grey == 255).all()
        else:
            with pytest.raises(UserError, match="0.png is transparent in some places only"):
                mask_pictures.load(path)


@pytest.mark.parametrize(
    ("values", "task", "words"),
    [
        (HARD.astype(np.uint16) * np.uint16(255), "binary", "and 255, but white is 65535 there"),
        (HARD * np.uint8(255), "semantic", "a mask of where it sounds, but classes are asked for"),
        (np.full((2, 2), 71, np.uint8), "semantic", "class id 71, but the data has 71 classes"),
        (PALETTE[[[70, 80]]], "semantic", "the colour of class id 80, but the data has 71"),
        (
            np.full((2, 2, 3), (9, 9, 8), np.uint8),
            "binary",
            r"the colour \(9, 9, 8\) and none that",
        ),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path, values, task, words):
    path = save(tmp_path / "0.png", values)
    with pytest.raises(UserError, match=f"{path} .*holds .*{words}"):
        mask_pictures.kind_of([path], task, K)


def test_masks_of_where_it_sounds_are_answered_with_the_configs_that_ask_so(tmp_path):
    path = save(tmp_path / "0.png", HARD * np.uint8(255))
    with pytest.raises(UserError) as error:
        mask_pictures.kind_of([path], "semantic", K)
    named = re.findall(r"configs/(\w+)\.py", str(error.value))
    assert named == ["s4", "ms3", "avss"]
    for name in named[:2]:
        assert mask_pictures.kind_of([path], task_of(name), K) == mask_pictures.GREY
    schedule = re.search(r"--config.schedule=\"(.*)\"", str(error.value))[1]
    assert mask_pictures.kind_of([path], task_of("avss", schedule), K) == mask_pictures.GREY


def task_of(name: str, schedule: str = "") -> str:
    """The task of the last stage of a config, which masks are scored for."""
    config = importlib.import_module(f"configs.{name}").get_config("/data")
    if schedule:
        config.schedule = ast.literal_eval(schedule)
    return config.stages[config.schedule[-1]].task


def test_unreadable_pictures(tmp_path):
    (tmp_path / "0.png").write_bytes(b"<html>")
    whole = save(tmp_path / "1.png", np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8))
    (tmp_path / "2.png").write_bytes(whole.read_bytes()[:200])
    for name in ("0.png", "2.png", "3.png"):
        with pytest.raises(UserError, match=f"the mask {tmp_path}/{name} cannot be read"):
            mask_pictures.load(tmp_path / name)


def test_colours_that_were_blended_are_background_and_counted(tmp_path):
    """AVSBench's script resizes class colours smoothly if it is told to resize."""
    picture = Image.fromarray(PALETTE[IDS]).resize((8, 8), Image.Resampling.BILINEAR)
    picture.save(tmp_path / "0.png")
    assert mask_pictures.kind_of([tmp_path / "0.png"], "semantic", K) == mask_pictures.COLOURS
    found, stray = mask_pictures.read(tmp_path / "0.png", mask_pictures.COLOURS, "semantic", 8, K)
    assert stray > 10 and set(np.unique(found).tolist()) <= set(IDS.ravel().tolist())
    assert found[7, 0] == 70


def test_sizes(tmp_path):
    """Classes and hard masks by nearest, shades bilinearly."""
    ids = save(tmp_path / "ids.png", np.arange(36, dtype=np.uint8).reshape(6, 6))
    found, _ = mask_pictures.read(ids, mask_pictures.IDS, "semantic", 2, K)
    np.testing.assert_array_equal(found, [[7, 10], [25, 28]])
    hard = save(tmp_path / "hard.png", np.kron(HARD, np.ones((3, 3), np.uint8)) * np.uint8(255))
    found, _ = mask_pictures.read(hard, mask_pictures.GREY, "binary", 4, K)
    assert set(np.unique(found)) == {0, 255}
    ramp = save(tmp_path / "ramp.png", np.tile(np.arange(0, 240, 40, dtype=np.uint8), (6, 1)))
    found, _ = mask_pictures.read(ramp, mask_pictures.GREY, "binary", 3, K)
    np.testing.assert_array_equal(found, [[20, 100, 180]] * 3)


# ---- written and read again


@pytest.mark.parametrize("task", ["binary", "semantic"])
def test_what_is_written_comes_back(tmp_path, task):
    rng = np.random.default_rng(0)
    count = 2 if task == "binary" else K
    masks = rng.integers(0, count, (2, 5, 6, 6)).astype(np.uint8)
    batch = {
        "ids": np.array(["v1s/dog_4000_9000", ""]),
        "valid": np.array([[True] * 5, [False] * 5]),
    }
    with mask_writers(tmp_path / "stage") as writers:
        writer = writers("masks", task)
        assert isinstance(writer, MaskWriter)
        writer(batch, masks)
        writer.close()
        assert [path.name for path in (tmp_path / "stage").iterdir()] == ["masks.partial"]
    assert [path.name for path in (tmp_path / "stage").iterdir()] == ["masks"]
    for path in (tmp_path / "stage").rglob("*.png"):
        with Image.open(path) as image:
            assert image.mode == ("L" if task == "binary" else "P")
            values, colours = np.asarray(image), np.asarray(image.convert("RGB"))
        wanted = masks[0, int(path.stem)]
        np.testing.assert_array_equal(values, wanted * (255 if task == "binary" else 1))
        if task == "semantic":  # ids to programs, AVSBench's colours to the eye
            np.testing.assert_array_equal(colours, PALETTE[wanted])
    with mask_writers(tmp_path / "stage") as writers:
        assert writers("masks", task) is None  # they are there
    source = types.SimpleNamespace(clips=CLIPS[:1], split="test")
    found = find_masks(tmp_path / "stage/masks", source)
    kind = mask_pictures.kind_of(found.paths, task, K)
    labelled = np.array([True, True, False, True, True])
    element = {"ids": "v1s/dog_4000_9000", "labelled": labelled}
    read = ReadMasks(found.files, kind, task, 6, K).map(element)
    expected = masks[0] * (255 if task == "binary" else 1) * labelled[:, None, None]
    np.testing.assert_array_equal(read["masks"], expected)
    padding = ReadMasks(found.files, kind, task, 6, K).map(
        {"ids": "", "labelled": labelled & False}
    )
    assert not padding["masks"].any()


def test_an_interrupted_writer_leaves_nothing_that_looks_whole(tmp_path):
    with pytest.raises(KeyboardInterrupt), mask_writers(tmp_path) as writers:
        writers("masks", "binary")
        raise KeyboardInterrupt
    assert not (tmp_path / "masks").exists()
