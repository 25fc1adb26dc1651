"""Errors as people read them: what the system refused, what to do, and paths as one writes them."""

import ast
import errno
import os
from pathlib import Path

import pytest

from data_pipelines.errors import reason, remedy, tidy_path
from data_pipelines.prepare import main as prepare

ROOT = Path(__file__).parents[2]
NAMES = ("AVSBench", "Mask2Former", "Swin", "VGGish", "VPO")  # written so wherever they stand


def os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code), "/some/file")


def tensor_store(code: int) -> ValueError:
    return ValueError(
        f'UNKNOWN: Error writing "a/c/0" in OCDBT database: Failed to write 380 bytes to file 17: '
        f"{os.strerror(code)} [os_error_code='{code}']"
    )


def safetensors(code: int) -> Exception:
    return Exception(f"Error while serializing: I/O error: {os.strerror(code)} (os error {code})")


def array_record(code: int) -> RuntimeError:
    return RuntimeError(f"write() failed: {os.strerror(code)}; writing /x/y.array_record")


@pytest.mark.parametrize("made", [os_error, tensor_store, safetensors, array_record])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "make the folder writable"),
        (errno.EPERM, "make the folder writable"),
        (errno.EROFS, "have that disk mounted for writing"),
        (errno.EFBIG, "raise the limit on the size of files"),
        (errno.ENOTDIR, "move what is in the way"),
    ],
)
def test_each_fault_has_its_own_remedy(made, code, words):
    assert remedy(made(code)).startswith(words)
    if made is not array_record:
        assert reason(made(code)) == os.strerror(code)


def test_faults_without_a_number_are_said_in_their_first_line():
    assert reason(ValueError("one\ntwo")) == "one" and reason(ValueError()) == "ValueError"
    assert remedy(ValueError("one")) == "check the path"


def test_paths_are_tidied_where_they_stay_the_same_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    for written, shown in (
        ("./x//y/", "x/y"),
        ("a/../b", "b"),
        ("none/../b/./c", "b/c"),
        (f"{tmp_path}/a/..//b", f"{tmp_path}/b"),
        ("..", ".."),
        (".", "."),
    ):
        assert str(tidy_path(written)) == shown
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere/deep")
    assert str(tidy_path("link/../b")) == "link/../b"  # which is elsewhere/b


def test_prepare_shows_tidy_paths_and_takes_names_as_they_are(
    raw_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    assert prepare([f"{tmp_path}/a/..//none", "--dry-run"]) == 2
    assert f"{tmp_path}/none" in capsys.readouterr().err
    flags = ["--dry-run", "--subsets", "v1s", "--html", "a/../page", "--json", "./report.v1"]
    assert prepare([str(raw_dir), *flags]) in (0, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "page", "report.v1"}
    assert (tmp_path / "page").read_text().lstrip().startswith("<!")


def sentences() -> list[tuple[str, str]]:
    """(where, first words) of every error of a user that is raised with a text of its own."""
    found = []
    files = [p for room in ("aavs_jax", "data_pipelines") for p in sorted((ROOT / room).rglob("*"))]
    for path in (path for path in files if path.suffix == ".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if name.endswith(("Error", "Fault", "Unreadable")) and node.args:
                text = node.args[0]
                text = text.values[0] if isinstance(text, ast.JoinedStr) and text.values else text
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", text.value))
    return found


def test_errors_begin_small():
    """They follow "error: ", or another sentence's colon."""
    everything = sentences()
    assert len(everything) > 100
    capital = [
        (where, text)
        for where, text in everything
        if text[:1].isupper() and not text.startswith(NAMES)
    ]
    assert not capital
