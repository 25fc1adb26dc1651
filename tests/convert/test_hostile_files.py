"""Files made to do harm: nothing in them runs, they cost little, and one sentence is said."""

import builtins
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aavs_jax.convert.files import read_state_dict, write_safetensors
from aavs_jax.errors import UserError

# `HOSTILE_EXAMPLES=20000 pytest ...` for a long run by hand.
EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "60"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="HOSTILE_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
SYSTEM = b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."
STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x08tQ"
)
NUMBERS = np.arange(8, dtype=np.float32).tobytes()


def integer(number: int) -> bytes:
    return pickle.dumps(number, 2)[2:-1]


def text(string: str) -> bytes:
    return b"X" + struct.pack("<I", len(string)) + string.encode()


def view(offset=b"K\x00", shape=b"K\x08\x85", strides=b"K\x01\x85", storage=STORAGE) -> bytes:
    """A tensor in opcodes."""
    head = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return head + storage + offset + shape + strides + b"\x89ccollections\nOrderedDict\n)RtR"


def state(tensor: bytes) -> bytes:
    """A pickle of {'a': tensor}."""
    return b"\x80\x02}" + text("a") + tensor + b"s."


def archive(content: bytes, method=zipfile.ZIP_STORED, **more: bytes) -> bytes:
    """A zip file as torch writes them, with any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("x/data.pkl", content)
        file.writestr("x/data/0", NUMBERS)
        file.writestr("x/byteorder", more.get("byteorder", b"little"))
        file.writestr("x/version", b"3\n")
    return buffer.getvalue()


def legacy(content: bytes) -> bytes:
    """The format before 1.6, with any pickle."""
    legacy_storage = STORAGE[:-2] + b"NtQ"
    keys = b"\x80\x02]" + text("0") + b"a."
    head = MAGIC + b"\x80\x02M\xe9\x03." + SYSTEM
    return head + content.replace(STORAGE, legacy_storage) + keys + struct.pack("<q", 8) + NUMBERS


def refused(path: Path, content: bytes) -> str:
    """What is said of a file that has to be refused."""
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 600
    return message


def read_or_refuse(path: Path, content: bytes) -> None:
    """Reads whatever it is; only a UserError may come out, or arrays that can be walked over."""
    path.write_bytes(content)
    try:
        found = read_state_dict(path)
    except UserError as error:
        assert str(error).isprintable()
        return
    for tensor in found.tensors.values():
        try:
            array = tensor.read()
        except UserError as error:  # the check sum differs
            assert str(error).isprintable()
            continue
        assert array.shape == tensor.shape
        array.astype(np.float32).sum()


def test_the_frames_are_sound(tmp_path):
    """What the tests below spoil is a file that torch reads too."""
    for name, content in [("zip", archive(state(view()))), ("old", legacy(state(view())))]:
        (tmp_path / name).write_bytes(content)
        found = read_state_dict(tmp_path / name).tensors["a"].read()
        np.testing.assert_array_equal(found, np.arange(8))
        assert torch.equal(torch.load(tmp_path / name)["a"], torch.arange(8.0))


# Nothing runs


class Runs:
    """Pickled, a call of any function."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


class Stateful:
    """Unpickled, touches the path that it was given."""

    def __init__(self, path):
        self.path = path

    def __getstate__(self):
        return self.path

    def __setstate__(self, path):
        Path(path).touch()


def payloads(marker: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that touch `marker` if unpickled, and what has to be named."""
    touch, system = f"touch {marker}", f"{os.system.__module__}.system"
    line = f"open({str(marker)!r}, 'w')"
    found = {
        "system": (pickle.dumps({"a": Runs(os.system, (touch,))}, 2), system),
        "stack_global": (pickle.dumps({"a": Runs(os.system, (touch,))}, 4), system),
        "exec": (pickle.dumps(Runs(builtins.exec, (line,)), 2), "__builtin__.exec"),
        "eval": (pickle.dumps([1, {"b": Runs(builtins.eval, (line,))}], 4), "builtins.eval"),
        "popen": (pickle.dumps(Runs(subprocess.getoutput, (touch,)), 2), "getoutput"),
        "inst": (f"(S'{touch}'\nios\nsystem\n.".encode(), "STRING"),
        "obj": (b"(cos\nsystem\n" + text(touch) + b"o.", "os.system"),
        "in_state": (
            state(view())[:-1] + text("b") + b"cos\nsystem\n" + text(touch) + b"\x85Rs.",
            "os.system",
        ),
        "thrown_away": (b"\x80\x02cos\nsystem\n" + text(touch) + b"\x85R0}.", "os.system"),
        "dotted": (
            b"\x80\x04"
            + text("torch._utils")
            + text("os.system")
            + b"\x93"
            + text(touch)
            + b"\x85R.",
            "torch._utils.os.system",
        ),
        "newobj": (
            b"\x80\x02csubprocess\nPopen\n" + text(touch) + b"\x85\x81.",
            "subprocess.Popen",
        ),
        "newobj_ex": (
            b"\x80\x04csubprocess\nPopen\n"
            + text(touch)
            + b"\x85}"
            + text("shell")
            + b"\x88s\x92.",
            "subprocess.Popen",
        ),
        "setstate": (pickle.dumps(Stateful(str(marker)), 2), "Stateful"),
        "getattr": (b"\x80\x02cbuiltins\ngetattr\ncos\nsystem\n", "builtins.getattr"),
        "torch.load": (b"\x80\x02ctorch\nload\n" + text("x") + b"\x85R.", "torch.load"),
        "import": (b"\x80\x02cbuiltins\n__import__\n" + text("os") + b"\x85R.", "__import__"),
        "extension": (b"\x80\x02\x82\x01.", "EXT1"),
        "extension_4": (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
        "next_buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
        "persistent_text": (b"Pos.system\n.", "PERSID"),
    }
    return found


NAMES = list(payloads(Path("marker")))


@pytest.mark.parametrize("frame", [archive, legacy, None], ids=["zip", "legacy", "plain"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_runs(tmp_path, name, frame):
    marker = tmp_path / "marker"
    content, named = payloads(marker)[name]
    if frame is None:
        if content[:1] != b"\x80":
            pytest.skip("torch never writes protocols 0 and 1")
        frame = bytes
    message = refused(tmp_path / "x.pth", frame(content))
    # Alone, a pickle has no storages and is refused at the first of them.
    if frame is not bytes or STORAGE not in content:
        assert named in message
        assert "trust" in message
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["system", "stack_global", "exec", "eval", "popen", "inst", "obj", "setstate"]
)
def test_the_payloads_would_run(tmp_path, name):
    """Else the test above proves nothing."""
    content, _ = payloads(tmp_path / "marker")[name]
    pickle.loads(content)
    assert (tmp_path / "marker").exists()


CALLS = [
    b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04K\x05K\x06tR",
    b"ctorch._utils\n_rebuild_tensor_v2\nNR",
    b"ctorch._utils\n_rebuild_tensor_v2\n]R",
    b"ctorch._utils\n_rebuild_tensor_v3\n(" + STORAGE + b"K\x00))\x89NX\x01\x00\x00\x00atR",
    b"ctorch._utils\n_rebuild_parameter\n(K\x01K\x02K\x03tR",
    b"ctorch._utils\n_rebuild_parameter\n)R",
    b"ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nint\nN)NtR",
    b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN)NtR",
    b"ctorch\nFloatStorage\nK\x08\x85R",
    b"ctorch\nfloat32\n)R",
    b"cbuiltins\nint\n)R",
    b"ccollections\nOrderedDict\nK\x01\x85R",
    b"ccollections\nOrderedDict\n]K\x01a\x85R",
    b"ccollections\nOrderedDict\n]]K\x01aa\x85R",
    b"ctorch\nSize\nK\x01\x85R",
    b"K\x01K\x02R",
    b"ctorch\nFloatStorage\n}b",
    b"K\x01}b",
    b"K\x01K\x02a",
    b"K\x01K\x02K\x03s",
    b"K\x01(K\x02K\x03u",
    b"}(K\x02u",
    b"(K\x01d",
    b"K\x01Q",
    b")Q",
    STORAGE.replace(b"FloatStorage", b"float32"),
    STORAGE.replace(b"K\x08", b"X\x01\x00\x00\x00a"),
    STORAGE.replace(b"K\x08", integer(-1)),
    STORAGE.replace(b"K\x08", integer(9)),
    STORAGE.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x001"),
    STORAGE.replace(b"X\x01\x00\x00\x000", text("../data.pkl")),
    STORAGE.replace(b"X\x01\x00\x00\x000", b"K\x00"),
    STORAGE.replace(b"X\x07\x00\x00\x00storage", b"X\x06\x00\x00\x00module"),
    b"h\x05",
    b"g-1\n",
    b"p99999999999999999999999\n",
    b"t",
    b"l",
    b"0",
    b"1",
    b"2",
    b"\x86",
    b"(0\x85",
    b"\x93",
    b"K\x01K\x02\x93",
    b"o",
    b"(o",
    b"\x81",
    b"\x92",
    b"R",
    b"\x90",
    b"}(K\x01\x90",
    b"\xff",
    b"",
]


@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_known_names_and_operations_used_wrongly(tmp_path, call):
    content = b"\x80\x02" + call + b"."
    message = refused(tmp_path / "x", archive(content))
    # Operations that only protocols 0 and 1 have are not known at all.
    assert "damaged" in message or "uses the pickle operation" in message or "holds" in message


@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_the_same_in_the_old_format(tmp_path, call):
    refused(tmp_path / "x", legacy(b"\x80\x02" + call + b"."))


# Tensors that leave their storage


@pytest.mark.parametrize("frame", [archive, legacy])
@pytest.mark.parametrize(
    "tensor",
    [
        view(offset=b"K\x01"),
        view(offset=integer(2**62)),
        view(offset=integer(2**64)),
        view(offset=integer(-1)),
        view(offset=b"N"),
        view(offset=b"\x88"),
        view(shape=b"K\x09\x85"),
        view(shape=integer(-8) + b"\x85"),
        view(shape=integer(2**63) + b"\x85"),
        view(shape=integer(2**64 + 8) + b"\x85"),
        view(shape=integer(2**32) * 2 + b"\x86", strides=b"K\x00K\x00\x86"),
        view(shape=integer(2**40) + b"\x85", strides=b"K\x00\x85"),
        view(shape=b"K\x00" + integer(2**62) + b"\x86", strides=b"K\x01K\x01\x86"),
        view(strides=b"K\x02\x85"),
        view(strides=integer(-1) + b"\x85"),
        view(strides=integer(2**61) + b"\x85"),
        view(strides=b")"),
        view(shape=b"K\x02K\x02\x86"),
        view(shape=b"]K\x08a"),
        view(shape=b"G" + bytes(8) + b"\x85"),
        view(shape=b"(" + b"K\x01" * 65 + b"t", strides=b"(" + b"K\x01" * 65 + b"t"),
        view(shape=b"(" + b"K\x01" * 33 + b"t", strides=b"(" + b"K\x01" * 33 + b"t"),
    ],
    ids=range(22),
)
def test_views_beyond_the_storage(tmp_path, tensor, frame):
    assert "damaged" in refused(tmp_path / "x", frame(state(tensor)))


def test_many_views_of_one_storage_that_would_fill_the_memory(tmp_path):
    """Each is small enough; all of them are not."""
    wide = view(shape=integer(2**22) + b"\x85", strides=b"K\x00\x85")
    once = b"\x80\x02}(" + text("a") + wide + b"q\x00"
    content = once + b"".join(text(f"b{i}") + b"h\x00" for i in range(100)) + b"u."
    assert "many times larger" in refused(tmp_path / "x", archive(content))


# Zip archives


def test_zip_bombs(tmp_path):
    bomb = archive(state(view()) + bytes(20_000_000), zipfile.ZIP_DEFLATED)
    assert len(bomb) < 50_000
    assert "compressed" in refused(tmp_path / "x", bomb)


def changed(content: bytes, at: int, layout: str, *values: int) -> bytes:
    new = struct.pack(layout, *values)
    return content[:at] + new + content[at + len(new) :]


SOUND = archive(state(view()))
CENTRAL = SOUND.index(b"PK\x01\x02")
SECOND = SOUND.index(b"PK\x01\x02", CENTRAL + 1)
END = SOUND.index(b"PK\x05\x06")


@pytest.mark.parametrize(
    "content",
    [
        changed(SOUND, SECOND + 42, "<L", 2**31),
        changed(SOUND, SECOND + 42, "<L", 2**32 - 1),
        changed(SOUND, SECOND + 20, "<LL", 2**31, 2**31),
        changed(SOUND, SECOND + 20, "<LL", 2**32 - 1, 2**32 - 1),
        changed(SOUND, SECOND + 20, "<LL", 33, 33),
        changed(SOUND, SECOND + 20, "<LL", 31, 31),
        changed(SOUND, SECOND + 24, "<L", 31),
        changed(SOUND, SECOND + 10, "<H", 8),
        changed(SOUND, SECOND + 8, "<H", 1),
        changed(SOUND, SECOND + 28, "<H", 60_000),
        changed(SOUND, SECOND + 46, "<8s", b"x/data.p"),
        changed(SOUND, SECOND + 46, "<8s", b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        changed(SOUND, 26, "<H", 9),
        changed(SOUND, 28, "<H", 60_000),
        changed(SOUND, END + 12, "<L", 2**31),
        changed(SOUND, END + 16, "<L", 2**31),
        changed(SOUND, END + 16, "<L", 0),
        SOUND[:END],
        SOUND[:CENTRAL],
        SOUND[: END + 10],
        archive(state(view()), byteorder=b"big"),
        archive(state(view()), byteorder=b"little" * 1000),
    ],
    ids=range(22),
)
def test_archives_that_lie(tmp_path, content):
    refused(tmp_path / "x", content)


@pytest.mark.parametrize(
    "content",
    [
        changed(SOUND, 8, "<H", 8),
        changed(SOUND, END + 8, "<HH", 5, 5),
        changed(SOUND, END + 8, "<HH", 65_535, 65_535),
        changed(SOUND, END + 20, "<H", 9),
        b"PK\x03\x04" + SOUND,
    ],
    ids=range(5),
)
def test_lies_that_change_nothing(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    found = read_state_dict(tmp_path / "x").tensors["a"].read()
    np.testing.assert_array_equal(found, np.arange(8))


def test_an_entry_over_another(tmp_path):
    """Its numbers are not those that the check sum is of."""
    (tmp_path / "x").write_bytes(changed(SOUND, SECOND + 42, "<L", 0))
    with pytest.raises(UserError, match="check sum"):
        read_state_dict(tmp_path / "x").tensors["a"].read()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(tmp_path):
    buffer = io.BytesIO(SOUND)
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("x/data.pkl", state(view()))
    assert "two entries" in refused(tmp_path / "x", buffer.getvalue())


def test_a_table_of_a_million_entries(tmp_path):
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(SOUND), 1)
    end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 0, 0, 0, 0, 2**40, 2**40, 2**50, 0)
    assert "damaged" in refused(tmp_path / "x", SOUND + end + locator + SOUND[END:])
    end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 0, 0, 0, 0, 10**6, 10**6, 46 * 10**6, 0)
    content = b"PK\x03\x04" + bytes(46 * 10**6)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(content), 1)
    assert "a table of contents of 46" in refused(
        tmp_path / "x", content + end + locator + SOUND[END:]
    )


# Bombs: what is small in the file and large in memory, deep, or slow


def doubling() -> bytes:
    """A list of two lists of two lists ... 2^1000 leaves in all, each by its memo."""
    return (
        b"\x80\x02]q\x00"
        + b"".join(
            b"]q"
            + bytes([i % 2 + 1, *b"(h"])
            + bytes([0 if i == 0 else (i - 1) % 2 + 1, *b"h", 0 if i == 0 else (i - 1) % 2 + 1])
            + b"e"
            for i in range(1000)
        )
        + b"."
    )


BIG_LIST = b"](" + b"]" * 300_000 + b"e"
BOMBS = {
    "deep tuple": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "deep list": b"\x80\x02" + b"](" * 100_000 + b"e" * 100_000 + b".",
    "deep dict": b"\x80\x02" + b"}K\x01" * 100_000 + b"N" + b"s" * 100_000 + b".",
    "deep key": b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.",
    "deep key of weights": b"\x80\x02})" + b"\x85" * 100_000 + view() + b"s.",
    "deep shape": state(view(shape=b")" + b"\x85" * 100_000)),
    "deep wrapping": b"\x80\x02"
    + b"}X\x01\x00\x00\x00a" * 100_000
    + view()
    + b"s" * 100_000
    + b".",
    "deep set": b"\x80\x04\x8f(" + b")" + b"\x85" * 100_000 + b"\x90.",
    "doubling": doubling(),
    "doubling tuples": b"\x80\x02)" + b"2\x86" * 100_000 + b".",
    "dict of itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "dict of many times itself": b"\x80\x02}q\x00("
    + b"".join(text(f"k{i}") + b"h\x00" for i in range(5000))
    + b"u.",
    "dicts of one large dict": b"\x80\x02}q\x00("
    + b"".join(text(f"k{i}") + b"N" for i in range(50_000))
    + b"u0}("
    + b"".join(text(f"k{i}") + b"h\x00" for i in range(50_000))
    + b"u.",
    "millions of lists": b"\x80\x02(" + b"]" * 5_000_000 + b"t.",
    "millions of marks": b"\x80\x02" + b"(" * 5_000_000 + b".",
    "pairs again and again": b"\x80\x02"
    + BIG_LIST
    + b"q\x000"
    + b"ccollections\nOrderedDict\nh\x00\x85R" * 50_000
    + b".",
    "sizes again and again": b"\x80\x02("
    + b"K\x01" * 500_000
    + b"tq\x00"
    + view(shape=b"h\x00", strides=b"h\x00") * 50
    + b".",
    "integers that clash": b"\x80\x02}("
    + b"".join(b"\x8a\x20" + (i * (2**61 - 1)).to_bytes(32, "little") + b"N" for i in range(50_000))
    + b"u.",
    "memo that clashes": b"\x80\x02N"
    + b"".join(b"p%d\n" % (i * (2**61 - 1)) for i in range(20_000))
    + b".",
    "long integer": b"\x80\x02\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b".",
    "long decimal": b"\x80\x02L" + b"9" * 10_000 + b"L\n.",
    "longer than the file": b"\x80\x02X\xff\xff\xff\xffa.",
    "longest": b"\x80\x04\x8d" + b"\xff" * 8 + b"a.",
    "bytes beyond all memory": b"\x80\x05\x96" + b"\xff" * 7 + b"\x00a.",
    "negative length": b"\x80\x02T\xff\xff\xff\xffa.",
    "a line without end": b"\x80\x02c" + b"a" * 1_000_000,
    "a large pickle": b"\x80\x02" + b"X" + struct.pack("<I", 40_000_000) + b"a" * 40_000_000 + b".",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(tmp_path, name):
    started = time.process_time()
    refused(tmp_path / "x", archive(BOMBS[name]))
    assert time.process_time() - started < 20


CHILD = """
import sys
from pathlib import Path
from aavs_jax.convert.files import read_state_dict
from aavs_jax.errors import UserError
def peak():
    # Not getrusage, whose figure includes the process that this one was forked from.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

before = peak()
try:
    read_state_dict(Path(sys.argv[1]))
except UserError as error:
    print(peak() - before)
"""


@pytest.mark.parametrize("name", ["deep dict", "doubling", "long decimal", "a line without end"])
def test_bombs_in_the_old_format(tmp_path, name):
    refused(tmp_path / "x", legacy(BOMBS[name]))


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its memory")
@pytest.mark.parametrize("name", ["millions of lists", "a large pickle"])
def test_bombs_take_little_memory(tmp_path, name):
    """In a process of its own, whose peak nothing else has raised; MB more than before."""
    path = tmp_path / "x"
    path.write_bytes(archive(BOMBS[name]))
    printed = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True
    )
    assert float(printed.stdout) < 200


# Files cut short, with bytes changed, and at random


def sound_files(folder: Path) -> dict[str, bytes]:
    """A small checkpoint in each format."""
    tensors = {
        "a.weight": torch.arange(12.0).reshape(3, 4).t(),
        "a.bias": torch.ones(3, dtype=torch.bfloat16),
        "n": torch.tensor(3),
    }
    value = {"model": tensors, "epoch": 3, "note": "x", "best": np.float64(0.5)}
    torch.save(value, folder / "zip")
    torch.save(value, folder / "legacy", _use_new_zipfile_serialization=False)
    torch.save(value, folder / "pickle_4", pickle_protocol=4)
    write_safetensors(
        folder / "safetensors", {name: t.float().numpy() for name, t in tensors.items()}, {"a": "b"}
    )
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, bytes]:
    return sound_files(tmp_path_factory.mktemp("sound"))


FORMS = pytest.mark.parametrize("form", ["zip", "legacy", "pickle_4", "safetensors"])


@FORMS
def test_cut_short_at_every_place(tmp_path, sound, form):
    """None of them passes for whole."""
    content = sound[form]
    for size in range(0, len(content), 1 if len(content) < 300 else 11):
        refused(tmp_path / "x", content[:size])


@FORMS
def test_single_bytes_changed(tmp_path, sound, form):
    content, draw = sound[form], random.Random(0)
    for place in draw.sample(range(len(content)), 200):
        spoilt = bytearray(content)
        spoilt[place] ^= draw.randrange(1, 256)
        read_or_refuse(tmp_path / "x", bytes(spoilt))


@FORMS
@FUZZ
@given(data=st.data())
def test_fuzzed_files(tmp_path_factory, sound, form, data):
    """Pieces overwritten, taken out and doubled."""
    content = bytearray(sound[form])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 40))
        new = data.draw(
            st.one_of(
                st.binary(max_size=20),
                st.sampled_from([b"\xff" * 8, b"\0" * 8, bytes(content[at : at + length]) * 2]),
            )
        )
        content[at : at + length] = new
    read_or_refuse(tmp_path_factory.getbasetemp() / "fuzzed", bytes(content))


PIECES = [
    *(
        b"(",
        b"0",
        b"1",
        b"2",
        b"N",
        b"\x88",
        b"\x89",
        b"]",
        b"}",
        b")",
        b"\x8f",
        b"K\x00",
        b"K\x02",
    ),
    *(b"a", b"e", b"s", b"u", b"t", b"l", b"d", b"\x85", b"\x86", b"\x87", b"R", b"\x81", b"\x92"),
    *(b"b", b"o", b"Q", b"h\x00", b"h\x01", b"q\x00", b"q\x01", b"\x94", b"\x90", b"\x91", b"."),
    *(text("a"), text("state_dict"), text("storage"), text("0"), STORAGE, view(), integer(2**63)),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctorch\nSize\n"),
    *(b"ctorch._utils\n_rebuild_tensor_v3\n", b"ctorch.storage\nUntypedStorage\n", b"\x93"),
    *(b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch._utils\n_rebuild_parameter\n"),
    *(b"ccollections\nOrderedDict\n", b"cargparse\nNamespace\n", b"ctorch\nfloat16\n"),
    *(b"cnumpy._core.multiarray\nscalar\n", b"G" + bytes(8), b"J\xff\xff\xff\xff", b"\x82\x01"),
    *(b"I01\n", b"S'a'\n", b"V\\u0061\n", b"F1.5\n", b"g0\n", b"p0\n", b"(icollections\nCounter\n"),
]


@FUZZ
@given(pieces=st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)), max_size=40))
def test_fuzzed_pickles(tmp_path_factory, pieces):
    content = b"\x80\x02" + b"".join(pieces) + b"."
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    read_or_refuse(path, archive(content))
    read_or_refuse(path, legacy(content))
    read_or_refuse(path, content)


@FUZZ
@given(
    shape=st.lists(st.integers(-2, 10) | st.integers(0, 2**70), max_size=4),
    strides=st.lists(st.integers(-2, 10) | st.integers(0, 2**70), max_size=4),
    offset=st.integers(-2, 10) | st.integers(0, 2**70),
)
def test_fuzzed_views_agree_with_torch(tmp_path_factory, shape, strides, offset):
    """Whatever torch takes as a view, too, has the same numbers."""
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    packed = [b"(" + b"".join(map(integer, numbers)) + b"t" for numbers in (shape, strides)]
    content = archive(state(view(integer(offset), *packed)))
    read_or_refuse(path, content)
    try:
        found = read_state_dict(path).tensors["a"].read()
    except UserError:
        return
    base = torch.arange(8.0)
    np.testing.assert_array_equal(found, torch.as_strided(base, shape, strides, offset).numpy())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**65) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I64", "BOOL", "F8_E5M2", "C64", "X", 3]),
        "shape": st.lists(st.integers(-1, 5) | st.integers(0, 2**65), max_size=3),
        "data_offsets": st.lists(st.integers(-1, 40) | st.integers(0, 2**65), max_size=3),
    }
)


@FUZZ
@given(
    header=st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__", ""]), entries | json_values, max_size=3
    ),
    lie=st.sampled_from([0, 0, 0, 1, -1, 2**20, 2**40]),
    data=st.binary(max_size=40),
)
def test_fuzzed_headers(tmp_path_factory, header, lie, data):
    written = json.dumps(header).encode()
    size = max(0, len(written) + lie)
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    read_or_refuse(path, size.to_bytes(8, "little") + written + data)


@FUZZ
@given(
    content=st.binary(max_size=200), head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", MAGIC])
)
def test_random_bytes(tmp_path_factory, content, head):
    read_or_refuse(tmp_path_factory.getbasetemp() / "fuzzed", head + content)
