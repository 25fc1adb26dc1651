"""PyTorch files, written by torch and read without it, and the other way round."""

import argparse
import collections
import fractions
import hashlib
import json
import os
import pathlib
import pickle
import subprocess
import sys
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import torch

from aavs_jax.convert.files import (
    digest,
    read_state_dict,
    write_all,
    write_safetensors,
    write_torch,
)
from aavs_jax.convert.files.writing import _integer
from aavs_jax.errors import UserError

BOTH = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def save(path, value, new=True, **kwargs):
    torch.save(value, path, _use_new_zipfile_serialization=new, **kwargs)
    return path


def bits(array) -> bytes:
    """Bytes of an array or tensor, in C order."""
    if isinstance(array, torch.Tensor):
        array = array.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.asarray(array, order="C").tobytes()


def assert_same(found, tensors):
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        array = found[name].read()
        assert found[name].shape == array.shape == tuple(tensor.shape), name
        assert found[name].dtype == array.dtype, name
        assert str(array.dtype) == str(tensor.dtype).removeprefix("torch."), name
        assert bits(array) == bits(tensor), name


def tensors() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=draw)
    dtypes = ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    return {
        "plain": base,
        "transposed": base.t(),
        "strided": base[1::2, ::3],
        "row": base[3],
        "channels_last": torch.randn(2, 3, 4, 5, generator=draw).to(
            memory_format=torch.channels_last
        ),
        "expanded": torch.randn(1, 5, generator=draw).expand(4, 5),
        "scalar": torch.tensor(2.5),
        "nothing": torch.zeros(0, 3),
        "nothing_more": torch.zeros(4, 0, dtype=torch.int64),
        "parameter": torch.nn.Parameter(torch.randn(3, generator=draw)),
        "special": torch.tensor([float("nan"), float("inf"), -0.0]),
        **{f"of_{d}": (100 * base[:2]).to(getattr(torch, d)) for d in dtypes},
    }


@BOTH
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_layout_of_tensor(tmp_path, new, protocol):
    path = save(tmp_path / "x.pth", tensors(), new, pickle_protocol=protocol)
    found = read_state_dict(path)
    assert_same(found.tensors, tensors())
    assert found.form == ("torch" if new else "torch (before 1.6)")
    assert (found.wrapping, found.besides, found.metadata) == ("", {}, {})
    assert found.files == (path,)
    assert found.bytes == path.stat().st_size


def test_the_suffix_says_nothing(tmp_path):
    path = save(tmp_path / "x.safetensors", tensors())
    assert_same(read_state_dict(path).tensors, tensors())


def test_newer_unsigned_integers(tmp_path):
    values = {d: torch.arange(5).to(getattr(torch, d)) for d in ("uint16", "uint32", "uint64")}
    assert_same(read_state_dict(save(tmp_path / "x", values)).tensors, values)


def test_tensors_with_attributes(tmp_path):
    tensor, parameter = torch.arange(4.0), torch.nn.Parameter(torch.ones(2))
    tensor.note, parameter.note = "by hand", 3
    values = {"tensor": tensor, "parameter": parameter}
    assert_same(read_state_dict(save(tmp_path / "x", values)).tensors, values)


@BOTH
def test_a_module(tmp_path, new):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = network.state_dict()
    assert state._metadata  # travels as an attribute, which has to be overlooked
    found = read_state_dict(save(tmp_path / "x", state, new))
    assert_same(found.tensors, state)
    assert found.besides == {}


def test_views_are_read_only_and_of_the_file(tmp_path):
    found = read_state_dict(save(tmp_path / "x", tensors())).tensors["plain"]
    array = found.read()
    assert not array.flags.writeable
    assert not array.flags.owndata


def mapped() -> float:
    """MB of files that this process holds in memory."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its memory")
@BOTH
def test_pages_are_let_go(tmp_path, new):
    values = {f"a{i}": torch.full((10, 200_000), float(i)).t() for i in range(6)}
    found = read_state_dict(save(tmp_path / "x", values, new)).tensors
    before = mapped()
    for number, tensor in enumerate(found.values()):
        assert tensor.read().sum() == 2e6 * number
        tensor.release()
        assert mapped() - before < 12
    assert_same(found, values)  # read once more
    assert mapped() - before > 40


@BOTH
def test_tensors_that_share_a_storage(tmp_path, new):
    base = torch.arange(1000.0)
    values = {f"part.{i}": base[i * 10 : i * 10 + 10] for i in range(100)} | {"tied": base[:10]}
    path = save(tmp_path / "x", values, new)
    assert path.stat().st_size < 60_000
    assert_same(read_state_dict(path).tensors, values)


def checkpoint(state) -> dict:
    """What a training script leaves."""
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 30,
        "state_dict": state,
        "best_acc1": torch.tensor(0.5),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict(),
        "scaler": {"scale": 1024.0},
        "args": argparse.Namespace(lr=1e-3, names=["a", ("b", 2)], out=pathlib.Path("/x")),
        "config": {"a": {"b": [1, 2.5, None, True]}},
        "rng_state": torch.get_rng_state(),
        "numpy_state": np.random.default_rng(0).normal(size=3),
        "best": np.float64(0.25),
        "size": torch.Size([3]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "history": collections.defaultdict(list, loss=[1.0, 2.0]),
        "classes": {"a", "b"},
        "raw": b"\x00\xff",
        "arch": "swin",
        (1, 2): "an odd key",
        2**70: "another",
    }


@BOTH
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_training_checkpoint(tmp_path, new, protocol):
    state = OrderedDict((f"module.{name}", value) for name, value in tensors().items())
    path = save(tmp_path / "x", checkpoint(state), new, pickle_protocol=protocol)
    found = read_state_dict(path)
    assert_same(found.tensors, tensors())
    assert found.wrapping == "under 'state_dict'; prefix 'module.'"
    assert len(found.besides) == len(checkpoint(state)) - 1 - 1  # the two odd keys look alike
    assert found.besides["epoch"] == "30"
    assert found.besides["optimizer"] == "optimiser state"
    assert found.besides["args"] == "a Namespace"
    assert found.besides["best"] == "a scalar"
    assert found.besides["rng_state"] == "state of random numbers"
    assert found.besides["best_acc1"] == "a tensor, []"


@pytest.mark.parametrize(
    ("wrap", "wrapping", "besides"),
    [
        (lambda s: {"model": s}, "under 'model'", {}),
        (lambda s: {"whatever": s, "n": 1}, "under 'whatever'", {"n": "1"}),
        (
            lambda s: {"a": {"net": s, "step": 7}, "b": "x"},
            "under 'a'/'net'",
            {"a/step": "7", "b": "'x'"},
        ),
        (lambda s: s | {"note": "mine"}, "", {"note": "'mine'"}),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, "prefix 'module.'", {}),
        (
            lambda s: {"net": {f"module._orig_mod.{k}": v for k, v in s.items()}},
            "under 'net'; prefix 'module.'; prefix '_orig_mod.'",
            {},
        ),
        (lambda s: {"model": s, "optim": {"buffer.a": torch.ones(3)}}, "under 'model'", ...),
        (lambda s: {"model": s, "criterion": {"w": torch.ones(3)}}, "under 'model'", ...),
        (lambda s: {"model": s, "callbacks": {"b": {"m": torch.ones(3)}}}, "under 'model'", ...),
        (lambda s: {"model": s, "figures": {"loss": torch.ones(())}}, "under 'model'", ...),
    ],
)
def test_wrappings(tmp_path, wrap, wrapping, besides):
    state = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2), "b": torch.ones(1)}
    found = read_state_dict(save(tmp_path / "x", wrap(state)))
    assert_same(found.tensors, state)
    assert found.wrapping == wrapping
    assert besides is ... or found.besides == besides


def test_a_prefix_that_only_some_have_stays(tmp_path):
    state = {"module.a": torch.ones(2), "b": torch.ones(3)}
    found = read_state_dict(save(tmp_path / "x", state))
    assert_same(found.tensors, state)
    assert found.wrapping == ""


def test_a_part_that_was_compiled(tmp_path):
    state = {"net._orig_mod.a.weight": torch.ones(2), "head": torch.ones(3)}
    found = read_state_dict(save(tmp_path / "x", state))
    assert list(found.tensors) == ["net.a.weight", "head"]
    assert found.wrapping == "prefix '_orig_mod.'"
    clash = state | {"net.a.weight": torch.ones(2)}
    with pytest.raises(UserError, match="differ only in '_orig_mod.'"):
        read_state_dict(save(tmp_path / "y", clash))


STATE = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"model": STATE, "model_ema": STATE}, r"several sets of weights \(model, model_ema\)"),
        ({**STATE, "ema": STATE}, "both by themselves and under ema"),
        ([STATE, 3], "holds a list of 2 instead of a state dict"),
        (torch.ones(3), r"holds a tensor, \[3\] instead"),
        (3, "holds 3 instead"),
        ({}, "no weights"),
        ({"epoch": 3, "model": {}}, r"no weights \(epoch, model\)"),
        (torch.optim.Adam([torch.ones(2)]).state_dict(), "state of an optimiser and no weights"),
        ({**STATE, "s": torch.eye(2).to_sparse()}, "tensors that can't be read here.*sparse"),
        ({**STATE, "c": torch.ones(2, dtype=torch.complex64)}, "can't be read here.*Complex"),
        ({**STATE, "f": torch.ones(2).to(torch.float8_e5m2)}, "can't be read here.*float8"),
        ({**STATE, "m": torch.ones(2, device="meta")}, "can't be read here.*meta_tensor"),
        ({**STATE, "n": torch._neg_view(torch.ones(2))}, "negated only when used"),
        ({"a\nb": torch.ones(2)}, r"a tensor named 'a\\nb'"),
        (torch.nn.Linear(2, 3), r"whole network .*torch\.nn\.modules\.linear\.Linear"),
        ({**STATE, "hook": os.system}, r"asks to run (posix|nt)\.system"),
        ({**STATE, "half": fractions.Fraction(1, 2)}, r"asks to run fractions\.Fraction"),
    ],
)
def test_what_is_no_single_state_dict(tmp_path, value, message):
    path = save(tmp_path / "x.pth", value)
    with pytest.raises(UserError, match=message) as caught:
        read_state_dict(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.filterwarnings("ignore")
def test_quantised_tensors_are_refused(tmp_path):
    value = {"q": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}
    with pytest.raises(UserError, match="can't be read here.*_rebuild_qtensor"):
        read_state_dict(save(tmp_path / "x", value))


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(1, 2)), tmp_path / "x.pt")
    with pytest.raises(UserError, match="TorchScript"):
        read_state_dict(tmp_path / "x.pt")


def test_python_2_files(tmp_path):
    """An OrderedDict by pairs, and names as byte strings."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x011U\x03cpuK\x02NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x00K\x02\x85K\x01\x85tR"
    state = b"\x80\x02ccollections\nOrderedDict\n](](U\x01a" + tensor + b"ee\x85R."
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    system = b"\x80\x02}U\rlittle_endian\x88s."
    path = tmp_path / "x.pth"
    numbers = np.array([1.5, -2], np.float32)
    keys = b"\x80\x02](U\x011e." + (2).to_bytes(8, "little") + numbers.tobytes()
    path.write_bytes(magic + b"\x80\x02M\xe9\x03." + system + state + keys)
    found = read_state_dict(path)
    np.testing.assert_array_equal(found.tensors["a"].read(), numbers)
    # torch agrees that this is a file of its own.
    assert torch.equal(torch.load(path)["a"], torch.from_numpy(numbers))


def test_storage_views_of_the_first_versions(tmp_path):
    view = b"(U\x011"
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x011U\x03cpuK\x05(U\x02v1K\x02K\x03ttQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x01K\x02\x85K\x01\x85tR"
    state = b"\x80\x02}(U\x01a" + tensor + b"u."
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    system = b"\x80\x02}U\rlittle_endian\x88s."
    numbers = np.arange(5, dtype=np.float32)
    keys = b"\x80\x02]" + view + b"e." + (5).to_bytes(8, "little") + numbers.tobytes()
    path = tmp_path / "x.pth"
    path.write_bytes(magic + b"\x80\x02M\xe9\x03." + system + state + keys)
    np.testing.assert_array_equal(read_state_dict(path).tensors["a"].read(), [3, 4])


# Writing


def arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    base = draw.normal(size=(6, 8)).astype(np.float32)
    dtypes = ["float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    return {
        "plain.weight": base,
        "transposed": base.T,
        "strided": base[::2, 1::3],
        "scalar": np.asarray(2.5, np.float32),
        "nothing": np.zeros((0, 3), np.float32),
        "long": np.zeros(300, np.float32),
        "bfloat16": base.astype(ml_dtypes.bfloat16),
        "big_endian": base.astype(">f4"),
        "name of ünicode": np.array([np.nan, np.inf, -0.0], np.float32),
        **{f"of_{d}": (100 * base).astype(d) for d in dtypes},
    }


@pytest.mark.parametrize("options", [{}, {"weights_only": False}, {"mmap": True}], ids=str)
def test_torch_reads_what_is_written(tmp_path, options):
    path = tmp_path / "x.pth"
    write_torch(path, arrays())
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]
    found = torch.load(path, **options)
    assert type(found) is OrderedDict
    assert list(found) == list(arrays())
    for name, array in arrays().items():
        tensor = found[name]
        assert type(tensor) is torch.Tensor and tensor.is_contiguous(), name
        assert not tensor.requires_grad
        assert tuple(tensor.shape) == array.shape, name
        assert str(tensor.dtype).removeprefix("torch.") == array.dtype.name, name
        assert bits(tensor) == bits(array.astype(array.dtype.newbyteorder("<"))), name
    assert_same(read_state_dict(path).tensors, found)


def test_written_storages_are_aligned_and_files_are_repeatable(tmp_path):
    for name in ("x", "y"):
        write_torch(tmp_path / name, arrays())
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    for tensor in read_state_dict(tmp_path / "x").tensors.values():
        assert tensor.start % 64 == 0


def test_a_module_loads_strictly_what_is_written(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    there = {name: value.numpy() for name, value in network.state_dict().items()}
    write_torch(tmp_path / "x", there)
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    other.load_state_dict(torch.load(tmp_path / "x"), strict=True)
    for name, value in other.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


def test_many_tensors_and_large_numbers(tmp_path):
    """Shapes beyond a byte and beyond 31 bits."""
    many = {f"t{i}": np.full((1, i), i, np.int16) for i in range(300)}
    many["wide"] = np.zeros((0, 2**20), np.float32)
    write_torch(tmp_path / "x", many)
    found = torch.load(tmp_path / "x")
    assert all(np.array_equal(found[name].numpy(), array) for name, array in many.items())
    for number in (0, 255, 256, 2**31 - 1, 2**31, 2**40, 2**63 - 1):
        assert pickle.loads(b"\x80\x02" + _integer(number) + b".") == number


def test_arrays_are_asked_for_one_by_one(tmp_path):
    written = []

    class Lazy(dict):
        def items(self):
            for name in ("a", "b", "c"):
                # What came before is in the file already, but for what is buffered.
                written.append((tmp_path / "x").stat().st_size)
                yield name, np.full(100_000, ord(name), np.uint8)

    write_torch(tmp_path / "x", Lazy())
    assert list(torch.load(tmp_path / "x")) == ["a", "b", "c"]
    assert written[1] > 90_000 and written[2] > 190_000


ONES = {"a": np.ones(3, np.float32)}


def ones(path):
    write_torch(path, ONES)


def test_nothing_half_written(tmp_path):
    wrong = {**ONES, "c": np.ones(2, np.complex64)}
    with pytest.raises(UserError, match="'c' is complex64"):
        write_all({tmp_path / "x": ones, tmp_path / "y": lambda path: write_torch(path, wrong)})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file/x"):
        write_all({tmp_path / "y": ones, tmp_path / "file" / "x": ones})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "write",
    [write_torch, lambda path, tensors: write_safetensors(path, tensors, {})],
    ids=["torch", "safetensors"],
)
def test_nobodys_file_is_touched(tmp_path, write):
    """Not what is at the name, nor what has a name like that of a temporary, nor behind a link."""
    (tmp_path / "other").write_text("mine")
    (tmp_path / "x.partial").symlink_to(tmp_path / "other")
    (tmp_path / ".x.partial").write_text("mine")
    write_all({tmp_path / "x": lambda path: write(path, ONES)})
    content = (tmp_path / "x").read_bytes()
    for name in ("x", "other", "x.partial"):
        with pytest.raises(UserError, match="nothing is overwritten"):
            write_all({tmp_path / name: lambda path: write(path, {"a": np.zeros(3, np.float32)})})
    assert (tmp_path / "x").read_bytes() == content and (tmp_path / "x.partial").is_symlink()
    assert (tmp_path / "other").read_text() == (tmp_path / ".x.partial").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 4
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~umask


def test_who_comes_second_is_refused(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(UserError, match="nothing is overwritten"):
        write_all({path: lambda place: (place.write_text("second"), write_all({path: ones}))})
    assert_same(read_state_dict(path).tensors, {"a": torch.ones(3)})
    assert list(tmp_path.iterdir()) == [path]


def test_folders_take_no_others_place(tmp_path):
    for name, make in (
        ("full", lambda p: (p / "x").mkdir(parents=True)),
        ("file", pathlib.Path.touch),
    ):
        path = tmp_path / name
        with pytest.raises(UserError, match="nothing is overwritten"):
            write_all({path: lambda place, path=path, make=make: (place.mkdir(), make(path))})
    empty = tmp_path / "empty"
    write_all({empty: lambda place: (place.mkdir(), (place / "y").touch(), empty.mkdir())})
    assert (empty / "y").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


def test_a_tensor_without_a_name(tmp_path):
    with pytest.raises(UserError, match="damaged .a tensor named ''"):
        read_state_dict(save(tmp_path / "x", {"": torch.ones(2), "a": torch.ones(2)}))


def test_a_number_that_was_changed_is_refused(tmp_path):
    """By the CRC-32 that torch notes, unless it was told not to."""
    path = save(tmp_path / "x", {"a": torch.arange(1000.0), "b": torch.ones(4)})
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(1000.0).numpy().tobytes()) + 2003] ^= 1
    path.write_bytes(content)
    found = read_state_dict(path).tensors
    with pytest.raises(UserError, match="x is damaged .*check sum.*download it again"):
        found["a"].read()
    assert found["b"].read().tolist() == [1, 1, 1, 1]
    torch.serialization.set_crc32_options(False)
    try:
        save(path, {"a": torch.arange(1000.0)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(read_state_dict(path).tensors, {"a": torch.arange(1000.0)})


def test_digest(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    assert digest([tmp_path / "x"]) == [{"name": "x", "bytes": 3, "sha256": sha256}]


def test_torch_is_not_needed(tmp_path):
    path = save(tmp_path / "x.pth", tensors())
    code = (
        "import sys, json, pathlib; sys.modules['torch'] = None\n"
        "from aavs_jax.convert.files import read_state_dict, write_torch\n"
        f"found = read_state_dict(pathlib.Path({str(path)!r})).tensors\n"
        "copies = {name: tensor.read() for name, tensor in found.items()}\n"
        f"write_torch(pathlib.Path({str(path)!r} + '2'), copies)\n"
        "print(json.dumps(sorted(found)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    assert json.loads(printed.stdout) == sorted(tensors())
    assert_same(read_state_dict(tmp_path / "x.pth2").tensors, tensors())
