"""safetensors files, folders, shards, and files that are something else."""

import gzip
import io
import json
import os
import tarfile
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from aavs_jax.convert.files import read_state_dict, write_all, write_safetensors, write_torch
from aavs_jax.errors import UserError


def arrays() -> dict[str, np.ndarray]:
    base = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    dtypes = ["float64", "float16", "int64", "int32", "int16", "int8", "uint8", "uint16", "bool"]
    return {
        "plain.weight": base,
        "transposed": base.T,
        "scalar": np.asarray(2.5, np.float32),
        "nothing": np.zeros((0, 3), np.float32),
        "bfloat16": base.astype(ml_dtypes.bfloat16),
        **{f"of_{d}": (100 * base).astype(d) for d in dtypes},
    }


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        there = found[name].read()
        assert found[name].shape == there.shape == array.shape, name
        assert found[name].dtype == there.dtype == array.dtype, name
        assert np.asarray(there, order="C").tobytes() == np.asarray(array, order="C").tobytes()


def test_round_trip(tmp_path):
    path = tmp_path / "x"
    write_safetensors(path, arrays(), {"card": '{"a": 1}'})
    found = read_state_dict(path)
    assert_same(found.tensors, arrays())
    assert found.form == "safetensors"
    assert found.metadata == {"card": '{"a": 1}'}
    assert (found.wrapping, found.besides, found.files) == ("", {}, (path,))
    assert not found.tensors["plain.weight"].read().flags.writeable
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_the_library_agrees_both_ways(tmp_path):
    write_safetensors(tmp_path / "ours", arrays(), {})
    theirs = safetensors.torch.load_file(tmp_path / "ours")
    assert torch.equal(theirs["transposed"], torch.from_numpy(arrays()["transposed"].copy()))
    assert theirs["bfloat16"].dtype == torch.bfloat16
    safetensors.torch.save_file(theirs, tmp_path / "theirs", metadata={"format": "pt"})
    found = read_state_dict(tmp_path / "theirs")
    assert_same(found.tensors, arrays())
    assert found.metadata == {"format": "pt"}


def test_prefixes_are_taken_off(tmp_path):
    write_safetensors(tmp_path / "x", {"module.a": np.ones(2), "module.b": np.ones(3)}, {})
    found = read_state_dict(tmp_path / "x")
    assert set(found.tensors) == {"a", "b"}
    assert found.wrapping == "prefix 'module.'"


def test_writing_what_it_cannot_hold(tmp_path):
    wrong = {"a": np.ones(3, np.complex128)}
    with pytest.raises(UserError, match="cannot write .*/x "):
        write_all({tmp_path / "x": lambda path: write_safetensors(path, wrong, {})})
    assert not list(tmp_path.iterdir())


def header(entries, data=b"", size=None) -> bytes:
    text = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header({"a": ENTRY}, bytes(7)), "damaged"),
        (header({"a": ENTRY}, bytes(9)), "damaged"),
        (header({"a": ENTRY}, bytes(8), size=2**30), "breaks off within its header"),
        (header({"a": ENTRY}, bytes(8), size=20), "damaged"),
        (header({"a": ENTRY, "b": ENTRY}, bytes(8)), "damaged"),
        (header({"a": ENTRY | {"shape": [2**62, 8]}}, bytes(8)), "damaged"),
        (header({"a": ENTRY | {"shape": [-2]}}, bytes(8)), "damaged"),
        (header({"a": ENTRY | {"shape": [3]}}, bytes(8)), "damaged"),
        (header({"a": ENTRY | {"data_offsets": [8, 0]}}, bytes(8)), "damaged"),
        (header({"a": ENTRY | {"dtype": "F31"}}, bytes(8)), "damaged"),
        (header({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)), "'C64'"),
        (header(b'{"a":' * 100_000), "damaged"),
        (header(b'{"a":' + b"[" * 100_000), "damaged"),
        (header({"a": ENTRY | {"shape": [1] * 500_000 + [2]}}, bytes(8)), "500001 dimensions"),
        (header(b" " * 10_000_000), "damaged"),
        (header({}), "no tensors"),
        (header({"a\n": ENTRY}, bytes(8)), "a tensor named"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)


# Folders


def test_folders_by_the_usual_names(tmp_path):
    first, second = {"a": np.ones(2)}, {"a": np.zeros(3)}
    write_torch(tmp_path / "pytorch_model.bin", second)
    (tmp_path / "config.json").write_text("{}")
    assert_same(read_state_dict(tmp_path).tensors, second)
    write_safetensors(tmp_path / "model.safetensors", first, {})
    found = read_state_dict(tmp_path)
    assert_same(found.tensors, first)
    assert found.files == (tmp_path / "model.safetensors",)


def test_the_only_file_of_weights_in_a_folder(tmp_path):
    write_torch(tmp_path / "best.ckpt", {"a": np.ones(2)})
    (tmp_path / "README.md").write_text("# weights")
    (tmp_path / "more").mkdir()
    assert_same(read_state_dict(tmp_path).tensors, {"a": np.ones(2)})
    write_torch(tmp_path / "last.ckpt", {"a": np.ones(2)})
    with pytest.raises(UserError, match="several files of weights .best.ckpt, last.ckpt"):
        read_state_dict(tmp_path)


def test_folders_without_weights(tmp_path):
    with pytest.raises(UserError, match="no file of weights .it is empty"):
        read_state_dict(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no file of weights .config.json"):
        read_state_dict(tmp_path)


SHARDS = {"one": {"a": np.ones(2), "b": np.zeros(3)}, "two": {"c": np.ones((2, 2))}}


def write_shards(folder, form="safetensors", **changes):
    """Two shards and an index, whose weight map is changed by `changes`."""
    for name, tensors in SHARDS.items():
        if form == "safetensors":
            write_safetensors(folder / f"{name}.safetensors", tensors, {"format": "pt"})
        else:
            write_torch(folder / f"{name}.bin", tensors)
    end = "safetensors" if form == "safetensors" else "bin"
    weight_map = {t: f"{name}.{end}" for name, tensors in SHARDS.items() for t in tensors}
    weight_map = {t: s for t, s in (weight_map | changes).items() if s is not None}
    name = "model.safetensors" if form == "safetensors" else "pytorch_model.bin"
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_shards(tmp_path, form):
    index = write_shards(tmp_path, form)
    found = read_state_dict(tmp_path)
    assert_same(found.tensors, SHARDS["one"] | SHARDS["two"])
    assert found.form == form
    assert found.files[0] == index and len(found.files) == 3
    assert found.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": None}, r"one\.safetensors does not hold what .* \(for one, 'a'\)"),
        ({"d": "two.safetensors"}, r"two\.safetensors does not hold what .* \(for one, 'd'\)"),
        ({"a": "two.safetensors"}, "does not hold what"),
        ({"a": "three.safetensors"}, r"lacks 1 of the 3 shards .* \('three\.safetensors'\)"),
        ({"a": "../one.safetensors"}, r"\.\./one\.safetensors leads out of its folder"),
        ({"a": "/etc/passwd"}, "/etc/passwd leads out of its folder"),
        ({"a": ".."}, "leads out of its folder"),
        ({"a": "..\\x"}, r"lacks 1 of the 3 shards"),
        ({"a": "x\0y"}, "damaged"),
        ({"a": 3}, "damaged"),
    ],
)
def test_indices_that_do_not_fit(tmp_path, changes, message):
    write_shards(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        read_state_dict(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 3}', "[" * 100_000, "\xff"]
)
def test_damaged_indices(tmp_path, text):
    write_shards(tmp_path).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="index.json is damaged"):
        read_state_dict(tmp_path)


def test_links(tmp_path):
    """A link out of a folder is refused; within, and in the Hugging Face cache, it is followed."""
    model = tmp_path / "models--x"
    folder = model / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (model / "blobs").mkdir()
    write_safetensors(model / "blobs" / "0123", {"a": np.ones(2)}, {})
    (folder / "model.safetensors").symlink_to("../../blobs/0123")
    assert_same(read_state_dict(folder).tensors, {"a": np.ones(2)})

    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").symlink_to(model / "blobs" / "0123")
    with pytest.raises(UserError, match="leads out of its folder"):
        read_state_dict(other)
    # A file that the user names himself may be wherever it is.
    assert_same(read_state_dict(other / "model.safetensors").tensors, {"a": np.ones(2)})

    shards = tmp_path / "shards"
    shards.mkdir()
    write_shards(shards)
    (shards / "one.safetensors").rename(tmp_path / "one.safetensors")
    (shards / "one.safetensors").symlink_to(tmp_path / "one.safetensors")
    with pytest.raises(UserError, match="leads out of its folder"):
        read_state_dict(shards)


# What is something else, by its content and whatever its name


def zipped(entries: dict[str, bytes], method=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def saved(function, *args) -> bytes:
    buffer = io.BytesIO()
    function(buffer, *args)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (LFS, "git lfs pull"),
        (b"<!DOCTYPE html><html><head><title>Google Drive</title>", "a web page"),
        (b"\xef\xbb\xbf\r\n  <html>", "a web page"),
        (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "a web page"),
        (b'{"error": "Entry not found"}', "JSON text"),
        (b'[{"a": 1}]', "JSON text"),
        (b"Not found\n", "is text, not weights .it begins with 'Not found"),
        ("Schlüssel".encode() * 200, "is text"),
        (gzip.compress(b"x" * 1000), "compressed: unpack"),
        (b"\xfd7zXZ\x00", "compressed: unpack"),
        (tarred(), "a tar archive"),
        (saved(np.savez, np.ones(3)), "a NumPy .npz archive"),
        (saved(np.savez_compressed, np.ones(3)), "a NumPy .npz archive"),
        (saved(np.save, np.ones(3)), "a NumPy array"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"GGUF" + bytes(100), "GGUF"),
        (zipped({"S4.pth": b"x"}), r"zip archive without weights of PyTorch \('S4.pth'"),
        (zipped({}), "empty zip archive"),
        (bytes(1000), "nothing but zeros"),
        (bytes(range(128, 256)) * 8, "no file of weights that is known here .it begins with 80 81"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
@pytest.mark.parametrize("name", ["x.pth", "model.safetensors"])
def test_files_that_are_something_else(tmp_path, content, message, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_state_dict(path)
    assert str(caught.value).startswith(str(path))


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(UserError, match="there is nothing at"):
        read_state_dict(tmp_path / "x.pth")
    with pytest.raises(UserError, match="can't be read|there is nothing"):
        read_state_dict(tmp_path / "x\0.pth")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UserError, match="can't be read|there is nothing"):
        read_state_dict(tmp_path / "circle")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no ordinary file"):
        read_state_dict(tmp_path / "pipe")
    with pytest.raises(UserError, match="no ordinary file"):
        read_state_dict("/dev/zero")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    write_torch(tmp_path / "x", {"a": np.ones(2)})

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root, as whom tests may run, may read everything
    with pytest.raises(UserError, match="can't be read .Permission denied"):
        read_state_dict(tmp_path / "x")
