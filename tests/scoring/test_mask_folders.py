"""Masks in the layouts and encodings of other tools."""

import ast
import importlib
import json
import re
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aavs_jax import main
from aavs_jax.errors import UserError
from aavs_jax.methods.method import Prediction
from aavs_jax.scoring import mask_pictures
from aavs_jax.scoring.mask_folders import ReadMasks, find_masks, state_of_files
from aavs_jax.scoring.mask_pictures import KINDS
from aavs_jax.scoring.mask_writer import MaskWriter, mask_writers
from data_pipelines.facts import avsbench
from data_pipelines.prepared.source import Clip

PALETTE = avsbench.palette()
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


@pytest.mark.parametrize(("rate", "start"), [(1.0, 0.0), (4, 0.0), (1, 2.5)])
def test_predictions_are_those_of_whole_seconds(tmp_path, rate, start):
    for clip in CLIPS:
        for second in range(clip.seconds):
            save(tmp_path / clip.uid / "masks" / f"{second}.png")
    record = {"written_by": "aavs_jax.predict", "masks_per_second": rate, "start": start}
    (tmp_path / CLIPS[1].uid / "summary.json").write_text(json.dumps(record))
    if (rate, start) == (1, 0):
        assert find_masks(tmp_path, SOURCE).layout == "<clip>/masks/<i>.png, i from 0"
        return
    with pytest.raises(UserError, match="masks in .*duet_0 are not those of seconds 0.*--fps=1"):
        find_masks(tmp_path, SOURCE)


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
    with pytest.raises(UserError, match="none of the 0 PNG files .*; 5 JPEG files do not"):
        find_masks(tmp_path, source)
    save(tmp_path / "dog_4000_9000/0.png")
    with pytest.raises(UserError, match="start at 0, .* is there.: .*; 5 JPEG files do not"):
        find_masks(tmp_path, source)
    (tmp_path / "dog_4000_9000/0.png").rename(tmp_path / "dog_4000_9000/1.png")
    for path in tmp_path.glob("*/*.jpg"):
        path.unlink()
    with pytest.raises(UserError, match="/2.png .*start at 1, .* is nowhere.: .*data.subsets$"):
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


def test_every_picture_that_changes_is_noticed(tmp_path):
    masks = tmp_path / "masks"
    (masks / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (masks / "a" / "0.png").write_bytes(b"1")
    (masks / "nothing.png").symlink_to(tmp_path / "none")
    (masks / "circle").symlink_to(masks)
    states = [state_of_files(masks)]

    def changed():
        states.append(state_of_files(masks))
        return len(set(states)) == len(states)

    assert not changed()  # nothing did
    states.pop()
    (masks / "a" / "1.PNG").write_bytes(b"1")
    assert changed()
    (masks / "a" / "1.PNG").write_bytes(b"22")
    assert changed()
    (masks / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "0.png").write_bytes(b"1")
    assert changed()
    (tmp_path / "elsewhere" / "0.png").write_bytes(b"22")
    assert changed()
    (masks / "nothing.png").unlink()
    (masks / "notes.txt").write_text("no picture")
    assert not changed()


# ---- what is in a picture

K = 71
HARD = np.array([[0, 1], [1, 0]], np.uint8)
IDS = np.array([[0, 7], [70, 1]], np.uint8)


def with_palette(values, palette):
    image = Image.fromarray(values).convert("P")
    image.putpalette(np.asarray(palette, np.uint8).tobytes())
    return image


GREY_RAMP = np.arange(256).repeat(3).reshape(256, 3)
RED = with_palette(HARD, [[0] * 3, [255, 0, 0]])
# picture -> what it says by itself for a binary stage and for a semantic one (None: nothing), and
# the kinds that fit it.
PICTURES = {
    "0_255": (HARD * np.uint8(255), "binary", None, "binary soft"),
    "bits": (Image.fromarray(HARD * np.uint8(255)).convert("1"), "binary", None, "binary soft"),
    "wide_0_65535": (HARD.astype(np.uint16) * np.uint16(65535), "binary", None, "binary soft"),
    # AVSBench's scripts: convert("P") of a mask of 0 and 255.
    "grey_palette": (
        with_palette(HARD * np.uint8(255), GREY_RAMP),
        *("binary", None, "binary soft"),
    ),
    "black_and_white": (
        with_palette(HARD, [[0] * 3, [255] * 3]),
        *("binary", None, "binary soft ids"),
    ),
    "rgb_mask": (
        np.repeat(HARD[..., None] * np.uint8(255), 3, -1),
        *("binary", None, "binary soft"),
    ),
    "0_1": (HARD, None, None, "binary soft ids"),
    "wide_0_255": (HARD.astype(np.uint16) * np.uint16(255), None, None, "binary soft"),
    "grey": (np.array([[0, 90], [200, 255]], np.uint8), None, None, "soft"),
    "ids": (IDS, None, None, "soft ids"),
    "rgb_ids": (np.repeat(IDS[..., None], 3, -1), None, None, "soft ids"),
    "wide_ids": (IDS.astype(np.uint16), None, None, "soft ids"),
    "own_palette": (with_palette(IDS, PALETTE[::-1]), None, None, "ids"),
    "red": (RED, None, None, "ids"),
    "palette": (with_palette(IDS, PALETTE), "colours", "colours", "ids colours"),
    "only_class_7": (
        with_palette(HARD * np.uint8(7), PALETTE),
        *("colours", "colours", "binary soft ids colours"),  # its colour is a grey
    ),
    "colours": (PALETTE[IDS], "colours", "colours", "colours"),
    "unknown_colours": (np.full((2, 2, 3), (9, 200, 77), np.uint8), "colours", "colours", ""),
    "id_above": (np.array([[0, 71], [80, 3]], np.uint8), None, None, "soft"),
    "colour_above": (PALETTE[[[0, 71], [80, 3]]], "colours", "colours", ""),
}


def saved(path: Path, values) -> Path:
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path)
    return path


@pytest.mark.parametrize("task", ["binary", "semantic"])
@pytest.mark.parametrize("name", PICTURES)
def test_what_a_picture_says_by_itself(tmp_path, name, task):
    values, *kinds, _ = PICTURES[name]
    kind = kinds[task == "semantic"]
    path, black = saved(tmp_path / "0.png", values), save(tmp_path / "black.png")
    if kind:
        assert mask_pictures.kind_of([black, path], task) == kind
        return
    with pytest.raises(UserError, match=str(path)) as error:
        mask_pictures.kind_of([black, path], task)
    asked = re.findall("--masks-kind=([a-z]+)", str(error.value))
    if asked or task == "binary":
        assert asked == (list(KINDS) if task == "binary" else ["ids", "colours"])
    else:
        assert "a mask of where it sounds, but classes are asked for" in str(error.value)


def test_black_pictures_are_of_every_kind(tmp_path):
    black = save(tmp_path / "0.png")
    assert mask_pictures.kind_of([black], "binary") == "binary"
    assert mask_pictures.kind_of([black], "semantic") == "ids"
    for kind in KINDS:
        assert not mask_pictures.read(black, kind, "binary", 2, K)[0].any()


@pytest.mark.parametrize("name", PICTURES)
def test_a_kind_that_is_told_is_not_guessed(tmp_path, name):
    values, *_, fitting = PICTURES[name]
    path = saved(tmp_path / "0.png", values)
    for kind in KINDS:
        for task in ("binary", "semantic")[: 1 + (kind in mask_pictures.SEMANTIC)]:
            if kind not in fitting.split():
                with pytest.raises(UserError, match=f"{path} h.*masks of the kind {kind} are"):
                    mask_pictures.read(path, kind, task, 2, K)
                continue
            found, stray = mask_pictures.read(path, kind, task, 2, K)
            assert found.dtype == np.uint8 and stray == 0
            ids = IDS if name in ("ids", "rgb_ids", "wide_ids", "own_palette", "palette") else HARD
            ids = {"only_class_7": HARD * 7, "colours": IDS}.get(name, ids)
            if kind != "soft":
                expected = ids if task == "semantic" else 255 * (ids != 0)
            elif name in ("0_1", "grey", "ids", "id_above", "rgb_ids"):
                expected = IDS if name == "rgb_ids" else values
            elif name.startswith("wide"):
                expected = np.rint(values / 257)
            else:
                expected = HARD * (128 if name == "only_class_7" else 255)
            np.testing.assert_array_equal(found, expected)


def test_a_picture_of_another_kind_than_the_first_is_named(tmp_path):
    first = save(tmp_path / "0.png", HARD * np.uint8(255))
    assert mask_pictures.kind_of([first, tmp_path / "none.png"], "binary") == "binary"
    soft = save(tmp_path / "1.png", np.array([[0, 99], [1, 255]], np.uint8))
    with pytest.raises(UserError, match="1.png holds 3 values besides 0, but masks of the kind bi"):
        mask_pictures.read(soft, "binary", "binary", 2, K)
    coloured = save(tmp_path / "2.png", PALETTE[IDS])
    for kind in ("binary", "soft", "ids"):
        with pytest.raises(UserError, match="2.png holds colours, but masks of the kind"):
            mask_pictures.read(coloured, kind, "binary", 2, K)


def test_sixteen_bits_are_scaled_alike_in_all_pictures(tmp_path):
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    for name, part in (("0.png", values), ("1.png", values[:3, :3])):
        found, _ = mask_pictures.read(save(tmp_path / name, part), "soft", "binary", len(part), K)
        np.testing.assert_array_equal(found, np.rint(part / 257))
    above = save(tmp_path / "2.png", np.full((2, 2), 300, np.uint16))
    with pytest.raises(UserError, match="2.png holds class id 300 where"):
        mask_pictures.read(above, "ids", "semantic", 2, K)


def test_a_kind_has_to_serve_the_task():
    for kind in (None, *KINDS):
        mask_pictures.check_kind(kind, "binary")
    for kind in ("binary", "soft"):
        with pytest.raises(UserError, match=f"--masks-kind={kind} say where it sounds, but cl.*s4"):
            mask_pictures.check_kind(kind, "semantic")
    with pytest.raises(UserError, match="--masks-kind=alpha is no kind of masks: there are binary"):
        mask_pictures.check_kind("alpha", "binary")


def test_the_flag_names_every_kind_as_it_is():
    flag = main.flags.FLAGS["masks-kind"]
    assert flag.parser.enum_values == list(KINDS)
    for kind, meaning in KINDS.items():
        assert f"{kind}: {meaning}" in flag.help


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
    ("values", "kind", "words"),
    [
        (np.full((2, 2), 71, np.uint8), "ids", "class id 71 where the data has 71 classes"),
        (PALETTE[[[70, 80]]], "colours", "the colour of class id 80 where the data has 71"),
        (
            np.full((2, 2, 3), (9, 9, 8), np.uint8),
            *("colours", r"the colour \(9, 9, 8\) and none that stands for a class"),
        ),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path, values, kind, words):
    path = save(tmp_path / "0.png", values)
    with pytest.raises(UserError, match=f"{path} holds {words}"):
        mask_pictures.read(path, kind, "semantic", 2, K)


def test_masks_of_where_it_sounds_are_answered_with_the_configs_that_ask_so(tmp_path):
    path = save(tmp_path / "0.png", HARD * np.uint8(255))
    with pytest.raises(UserError) as error:
        mask_pictures.kind_of([path], "semantic")
    named = re.findall(r"configs/(\w+)\.py", str(error.value))
    assert named == ["s4", "ms3", "avss"]
    for name in named[:2]:
        assert mask_pictures.kind_of([path], task_of(name)) == "binary"
    schedule = re.search(r"--config.schedule=\"(.*)\"", str(error.value))[1]
    assert mask_pictures.kind_of([path], task_of("avss", schedule)) == "binary"


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
    assert mask_pictures.kind_of([tmp_path / "0.png"], "semantic") == "colours"
    found, stray = mask_pictures.read(tmp_path / "0.png", "colours", "semantic", 8, K)
    assert stray > 10 and set(np.unique(found).tolist()) <= set(IDS.ravel().tolist())
    assert found[7, 0] == 70


def test_sizes(tmp_path):
    """Classes and hard masks by nearest, soft ones bilinearly."""
    ids = save(tmp_path / "ids.png", np.arange(36, dtype=np.uint8).reshape(6, 6))
    found, _ = mask_pictures.read(ids, "ids", "semantic", 2, K)
    np.testing.assert_array_equal(found, [[7, 10], [25, 28]])
    hard = save(tmp_path / "hard.png", np.kron(HARD, np.ones((3, 3), np.uint8)) * np.uint8(255))
    found, _ = mask_pictures.read(hard, "soft", "binary", 4, K)
    assert set(np.unique(found)) == {0, 255}
    ramp = save(tmp_path / "ramp.png", np.tile(np.arange(0, 240, 40, dtype=np.uint8), (6, 1)))
    found, _ = mask_pictures.read(ramp, "soft", "binary", 3, K)
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
        writer = writers("masks", task, "hard")
        assert isinstance(writer, MaskWriter)
        writer(batch, Prediction(masks))
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
        assert writers("masks", task, "hard") is None  # they are there
    source = types.SimpleNamespace(clips=CLIPS[:1], split="test")
    found = find_masks(tmp_path / "stage/masks", source)
    kind = mask_pictures.kind_of(found.paths, task)
    labelled = np.array([True, True, False, True, True])
    element = {"ids": "v1s/dog_4000_9000", "labelled": labelled}
    read = ReadMasks(found.files, kind, task, 6, K).map(element)
    expected = masks[0] * (255 if task == "binary" else 1) * labelled[:, None, None]
    np.testing.assert_array_equal(read["masks"], expected)
    padding = ReadMasks(found.files, kind, task, 6, K).map(
        {"ids": "", "labelled": labelled & False}
    )
    assert not padding["masks"].any()


def test_soft_masks_are_the_share_of_what_sounds(tmp_path):
    """And a picture whose highest value is 1 is none: it could not be told from a mask of ids."""
    sounds = np.array(
        [[[[0.0, 0.25, 0.5, 0.75, 1.0]]], [[[0.0, 0.004, 0.0, 0.0, 0.0]]]], np.float32
    )
    classes = (sounds > 0.5).astype(np.uint8)
    confidence = np.where(classes, sounds, 1 - sounds)
    batch = {"ids": np.array(["clips/a", "clips/b"]), "valid": np.array([[True], [True]])}
    with mask_writers(tmp_path) as writers:
        writer = writers("masks-soft", "binary", "soft")
        writer(batch, Prediction(classes, {"confidence": confidence}))
        writer.close()
    values = [np.asarray(Image.open(tmp_path / f"masks-soft/clips/{c}/0.png")) for c in "ab"]
    assert values[0].tolist() == [[0, 64, 128, 191, 255]]
    assert values[1].tolist() == [[0, 0, 0, 0, 0]]


def test_an_interrupted_writer_leaves_nothing_that_looks_whole(tmp_path):
    with pytest.raises(KeyboardInterrupt), mask_writers(tmp_path) as writers:
        writers("masks", "binary", "hard")
        raise KeyboardInterrupt
    assert not (tmp_path / "masks").exists()
