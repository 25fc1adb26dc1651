"""What the process does with memory that it has freed."""

import ctypes
import importlib.util
import platform
import subprocess
import sys

import pytest

from aavs_jax.run.memory import keep_freed

# Pages that had to be fetched for the same 64 MB again and again.
FETCHED = """
import importlib.metadata, importlib.util, resource, sys
importlib.metadata.entry_points = lambda group: ()  # whatever is installed here
importlib.util.find_spec = lambda name: None
from aavs_jax.run.memory import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
for number in range(11):
    if number == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (number + 2**26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def fetched(how):
    run = [sys.executable, "-c", FETCHED, how]
    return int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_what_is_freed_is_used_again():
    assert fetched("kept") < fetched("plain") / 10


def test_beside_an_accelerator_or_settings_of_the_users_nothing_is_set(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked the C library"))
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: name == "libtpu")
        keep_freed()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    keep_freed()
