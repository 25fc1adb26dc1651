"""Damaged clips, at random and on purpose: one sentence, or a result; nothing is left half-made."""

import random

import pytest
from PIL import Image

import aavs_jax
from aavs_jax.errors import UserError
from aavs_jax.prediction import KINDS, outputs, sources
from aavs_jax.prediction.clip_folder import Asked, write_clip
from aavs_jax.prediction.stream import Span
from data_pipelines.errors import DataError

WAYS = ("cut", "bytes", "head", "zeros", "swap")


@pytest.fixture(scope="module")
def model(tiny_run):
    return aavs_jax.load(tiny_run[0] / "localise" / "all")


def damaged(content: bytes, seed: int) -> bytes:
    chance, data = random.Random(seed), bytearray(content)
    way, size = WAYS[seed % len(WAYS)], len(content)
    if way == "cut":
        return bytes(data[: chance.randrange(size)])
    if way in ("bytes", "head"):
        for _ in range(chance.choice((1, 10, 100))):
            data[chance.randrange(size if way == "bytes" else 600)] = chance.randrange(256)
    elif way == "zeros":
        begin = chance.randrange(size)
        end = min(size, begin + chance.choice((10, 2000)))
        data[begin:end] = bytes(end - begin)
    else:
        one, other = chance.randrange(size - 500), chance.randrange(size - 500)
        data[one : one + 500], data[other : other + 500] = (
            data[other : other + 500],
            data[one : one + 500],
        )
    return bytes(data)


def predicted(model, path, out, kinds=("masks",)):
    (clip,) = sources.find([str(path)])
    return write_clip(model, clip, out, Asked(Span(), kinds))


def test_damage_is_a_sentence_or_a_result(model, tmp_path, write_noise):
    content = write_noise(tmp_path / "whole.mp4").read_bytes()
    refused = 0
    for seed in range(60):
        path = tmp_path / "film.mp4"
        path.write_bytes(damaged(content, seed))
        out = tmp_path / f"out{seed}"
        try:
            predicted(model, path, out, KINDS if seed % 10 == 0 else ("masks",))
        except (UserError, DataError) as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
            assert not out.exists()
        else:
            assert (out / outputs.SUMMARY).exists()
    assert 5 < refused < 60
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_encrypted_films_are_refused(model, tmp_path, write_noise):
    key = "00112233445566778899aabbccddeeff"
    cenc = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    write_noise(tmp_path / "film.mp4", **cenc)
    with pytest.raises(DataError, match="film.mp4 .it is encrypted"):
        predicted(model, tmp_path / "film.mp4", tmp_path / "out")


def test_an_animation_takes_the_sound_beside_it(model, tmp_path, write_noise):
    pictures = [Image.new("RGB", (31, 17), (9 * n, 0, 0)) for n in range(12)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=250)
    with pytest.raises(UserError, match="a.gif has no sound: give one with --sound=FILE"):
        predicted(model, tmp_path / "a.gif", tmp_path / "out")
    write_noise(tmp_path / "a.m4a")
    summary = predicted(model, tmp_path / "a.gif", tmp_path / "out", KINDS)
    assert summary["masks"] == 3 and summary["sound"] == str(tmp_path / "a.m4a")
    assert (summary["width"], summary["height"]) == (31, 17)
    assert any(note.startswith("The sound ends after 2.1 s") for note in summary["notes"])
