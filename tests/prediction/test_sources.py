"""What counts as a clip: videos, pictures and folders of frames, each with its sound."""

import numpy as np
import pytest
import soundfile
from PIL import Image

from aavs_jax.errors import UserError
from aavs_jax.prediction import sources


def picture(path, value=0, size=(8, 6), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path, **options)


def tone(path, seconds=2.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(8000 * seconds), 0.1), 8000)
    return path


def test_a_folder_of_frames_is_one_clip_in_the_order_of_numbers(tmp_path):
    for number in (10, 2, 1):
        picture(tmp_path / "clip" / "frames" / f"f{number}.png", number)
    sound = tone(tmp_path / "clip" / "audio.wav")
    (clip,) = sources.find([str(tmp_path / "clip")])
    assert (clip.name, clip.sound) == ("clip", sound)
    with sources.open_pictures(clip, rate=2) as opened:
        shown = list(opened.frames(0.0))
        assert [frame.picture().max() for frame in shown] == [1, 2, 10]
        assert [frame.seconds for frame in shown] == [0, 0.5, 1]
        assert (opened.width, opened.height, opened.duration) == (8, 6, 1.5)


def test_a_picture_is_shown_as_long_as_the_sound_beside_it(tmp_path):
    picture(tmp_path / "dog.jpg", 7)
    tone(tmp_path / "dog.wav", 3.2)
    (clip,) = sources.find([str(tmp_path / "dog.jpg")])
    with sources.open_pictures(clip, rate=1) as opened:
        assert sources.sound_of(clip, opened) == tmp_path / "dog.wav"
        assert len(list(opened.frames(0.0))) == 3
    other = tone(tmp_path / "other" / "long.wav", 7)
    (clip,) = sources.find([str(tmp_path / "dog.jpg")], other)
    assert clip.sound == other
    (clip,) = sources.find([str(tmp_path / "dog.jpg")], silent=True)
    with sources.open_pictures(clip) as opened:
        assert sources.sound_of(clip, opened) is None and opened.duration == 1


def test_phones_store_upright_pictures_lying(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture(tmp_path / "phone.jpg", exif=turned)
    (clip,) = sources.find([str(tmp_path / "phone.jpg")], silent=True)
    with sources.open_pictures(clip) as opened:
        assert (opened.width, opened.height) == (6, 8)


def test_folders_and_lists_of_clips_have_names_of_their_own(tmp_path):
    picture(tmp_path / "all" / "a" / "0.png")
    picture(tmp_path / "all" / "b" / "a" / "0.png")
    (tmp_path / "all" / "film.mp4").write_bytes(b"")
    (tmp_path / "all" / "notes.doc").write_bytes(b"")
    (tmp_path / "all" / "empty" / "inside").mkdir(parents=True)
    picture(tmp_path / "a-2" / "0.png")
    listed = tmp_path / "list.txt"
    listed.write_text("all/a\n\nall\na-2\n")
    clips = sources.find([str(listed)], silent=True)
    assert [clip.name for clip in clips] == ["a", "a-3", "a-4", "film", "a-2"]


def test_the_folder_in_which_one_is_has_its_name(tmp_path, monkeypatch):
    picture(tmp_path / "clip" / "0.png")
    monkeypatch.chdir(tmp_path / "clip")
    (clip,) = sources.find(["."])
    assert clip.name == "clip" and clip.sound is None


@pytest.mark.parametrize(
    ("files", "name", "heard"),
    [
        (["walk.mp4", "audio.wav"], "clip", "audio.wav"),
        (["walk.mov", "audio.flac", "music.mp3", "labels/0.png"], "clip", "audio.flac"),
        (["walk.mp4", "labels/0.png"], "clip", "walk.mp4"),
        (["video.mp4"], "clip", "video.mp4"),
        (["walk.mp4"], "walk", "walk.mp4"),
        (["walk.mp4", "music.wav"], "walk", "walk.mp4"),
    ],
)
def test_a_folder_with_one_film_is_the_clip_that_prepare_makes_of_it(tmp_path, files, name, heard):
    for file in files:
        (tmp_path / "clip" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clip" / file).write_bytes(b"")
    (clip,) = sources.find([str(tmp_path)])
    assert (clip.name, clip.pictures) == (name, ())
    assert clip.sound == tmp_path / "clip" / heard
    (silent,) = sources.find([str(tmp_path / "clip")], silent=True)
    assert silent.path == clip.path and silent.sound is None


def test_labels_are_no_clip_and_other_clips_beside_a_film_are(tmp_path):
    for inside in ("video.mp4", "labels/0.png", "other/0.png"):
        picture(tmp_path / "a" / inside, format="png")
    assert [clip.name for clip in sources.find([str(tmp_path)])] == ["other", "a"]
    picture(tmp_path / "b" / "labels" / "0.png")
    (clip,) = sources.find([str(tmp_path / "b")])
    assert clip.name == "labels"  # there is nothing that these would be labels of


def test_what_is_hidden_or_was_predicted_is_passed_over(tmp_path):
    for inside in (
        "a/0.png",
        "a/._0.png",
        ".hidden/0.png",
        "__MACOSX/a/0.png",
        "c_out/masks/0.png",
    ):
        picture(tmp_path / inside)
    (tmp_path / "._film.mp4").write_bytes(b"")
    (tmp_path / "c_out" / "summary.json").write_text('{"written_by": "aavs_jax.predict"}')
    (clip,) = sources.find([str(tmp_path)])
    assert (clip.name, clip.pictures) == ("a", (tmp_path / "a" / "0.png",))
    (tmp_path / "c_out" / "summary.json").write_text('{"written_by": "me"}')
    assert [clip.name for clip in sources.find([str(tmp_path)])] == ["a", "masks"]


def test_a_sound_beside_a_clip_has_its_whole_name_in_any_case(tmp_path):
    for folder in ("take", "take.1"):
        picture(tmp_path / folder / "0.png")
        sound = tone(tmp_path / f"{folder}.wav")
    assert sources.find([str(tmp_path / "take.1")])[0].sound == sound
    picture(tmp_path / "DSC1.JPG")
    sound = tone(tmp_path / "DSC1.WAV")
    assert sources.find([str(tmp_path / "DSC1.JPG")])[0].sound == sound
    picture(tmp_path / "dog.jpg")
    sound = tone(tmp_path / "dog.wav")
    tone(tmp_path / "Dog.WAV")
    assert sources.find([str(tmp_path / "dog.jpg")])[0].sound == sound


def test_of_several_names_those_that_can_be_used_are_found(tmp_path):
    picture(tmp_path / "a" / "0.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "self.txt").write_text("self.txt\n")
    (tmp_path / "list.txt").write_text("empty\na\n")
    names = ("binary.txt", "self.txt", "list.txt", "w" * 300)
    clips = sources.find([str(tmp_path / name) for name in names], silent=True)
    faults = {clip.name: clip.fault for clip in clips}
    assert faults["a"] == "" and "w" * 50 in faults and len(clips) == 5
    for name, said in (
        ("binary.txt", "is no list"),
        ("self.txt", "itself"),
        ("empty", "no videos"),
    ):
        (clip,) = [clip for clip in clips if clip.name == name]
        assert said in clip.fault
        with pytest.raises(UserError, match=said), sources.open_pictures(clip):
            pass


def test_a_link_to_a_folder_that_it_lies_in_is_not_followed(tmp_path):
    for name in "ab":
        picture(tmp_path / name / "in" / "0.png")
        (tmp_path / name / "up").symlink_to(tmp_path)
        (tmp_path / name / "there").symlink_to(tmp_path / "ba"["ab".index(name)])
    clips = sources.find([str(tmp_path)], silent=True)
    assert [clip.name.split("-")[0] for clip in clips] == ["in"] * 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.mp4", "there is no file or folder .*nothing.mp4: check the path"),
        ("empty", "empty holds no videos, pictures or folders of frames"),
        ("none.txt", "none.txt names no files: write a path in each line"),
        ("self.txt", "self.txt names itself"),
        ("prose.txt", "cannot look for .*wordsword.* [(]File name too long[)]: check the path"),
    ],
)
def test_what_is_not_there_is_a_sentence(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("\n")
    (tmp_path / "self.txt").write_text("self.txt\n")
    (tmp_path / "prose.txt").write_text("words" * 60)
    with pytest.raises(UserError, match=message):
        sources.find([str(tmp_path / name)])


def test_a_clip_without_a_sound_wants_one(tmp_path):
    picture(tmp_path / "mute" / "0.png")
    (clip,) = sources.find([str(tmp_path / "mute")])
    with (
        sources.open_pictures(clip) as opened,
        pytest.raises(UserError, match="mute has no sound: give one with --sound=FILE, or ask"),
    ):
        sources.sound_of(clip, opened)
