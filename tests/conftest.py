"""Options of the whole test suite, and tiny runs of the command."""

import functools
import gc
import gzip
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from configs import avss

REPOSITORY = Path(__file__).parents[1]

# Before JAX is imported. What LLVM does for speed takes longer than these runs save by it; XLA's
# fusion emitters for the CPU take three times as long to compile as the older code beside them;
# code in many parts, each compiled by a thread, is more work for the one core that is free; and
# what one test has compiled serves the next. The cache is of one test run, and of one of the
# processes that share it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
        os.environ.get("XLA_FLAGS", ""),
    ]
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="aavs_jax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_COMPILATION_CACHE_DIR"] += f"/{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Tracing makes many objects that live as long as the process; Python would look at them again and
# again for cycles.
gc.set_threshold(50_000, 20, 100)


# Of the processes that share the tests one runs a file, and one all files that need `tiny_run`.
# What takes longest comes first, so that none waits long for the other at the end.
LONGEST = ("test_devices", "test_second_method", "test_golden", "test_method", "test_train")


def pytest_collection_modifyitems(items):
    def rank(item) -> int:
        named = (i for i, name in enumerate(LONGEST, 1) if item.path.stem == name)
        return 0 if _needs_a_run(item.path) else next(named, len(LONGEST) + 1)

    items.sort(key=rank)


def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, *inside = nodeid.split("::")
            if _needs_a_run(config.rootpath / file):
                return "runs"
            # Golden files are of several networks, each tested by a class of its own.
            return "::".join([file, *inside[:-1]]) if "golden" in file else file

    return ByFile(config, log)


@functools.cache
def _needs_a_run(path: Path) -> bool:
    return "tiny_run" in path.read_text()


def pytest_addoption(parser):
    parser.addoption(
        "--golden",
        action="append",
        default=[],
        metavar="FILE.npz",
        help="check this golden file (repeatable) instead of those found beside and in the repo",
    )


# ---- runs of the command, as small as they can be


def _tiny_keys() -> dict[str, object]:
    """Below config.stages.<stage>: a network of 0.1 M parameters that sees 32 pixels."""
    return {
        "model.num_queries": 4,
        "model.feature_size": 32,
        "model.num_heads": 2,
        "model.encoder_layers": 1,
        "model.encoder_ffn": 32,
        "model.decoder_layers": 1,
        "model.decoder_ffn": 32,
        "model.audio_hidden": 16,
        "model.backbone.embed_dim": 8,
        "model.backbone.depths": (1, 1, 1, 1),
        "model.backbone.num_heads": (1, 1, 2, 2),
        "model.backbone.window_size": 2,
        "model.audio.blocks": ((4,), (4,), (4,), (4,)),
        "model.audio.fully_connected": (8,),
        "data.image_size": 32,
        "data.label_size": 32,
        "data.max_targets": 4,  # background and three sounding objects
    }


@pytest.fixture(scope="session")
def tiny_stage():
    """A function: stage of configs/avss.py, other keys -> its plain config, tiny, built-in data."""

    def make(name: str, **changes) -> dict:
        stage = avss.get_config().stages[name]
        keys = {**_tiny_keys(), "loss.grid": 8, **changes}
        stage.update_from_flattened_dict(keys)
        return stage.to_dict()

    return make


@pytest.fixture(scope="session")
def tiny_flags():
    """A function: stages, phases, keys below the stages -> the flags of a tiny run.

    12 clips of 32 pixels; with configs/avss.py each phase has 36 steps of 4 clips.
    """

    def make(
        stages=("localise", "understand"), phases=("all",), epochs: float = 24.0, **changes
    ) -> list[str]:
        keys = {**_tiny_keys(), **changes}
        if phases == ("all",):
            # A constant rate, or else the number of steps would be a constant of what is compiled.
            keys = {
                "loss.grid": 8,
                "data.batch_size": 4,
                "phases.all.validate_every_epochs": 12.0,
                "phases.all.optimizer.warmup_steps": 2,
                "phases.all.optimizer.schedule": "constant",
            } | keys
        keys |= {f"phases.{phase}.epochs": epochs for phase in phases}
        run = {
            "data.clips": 12,
            "data.size": 32,
            "log_every": 1,
            "checkpoint_every": 9,
            "eval.examples": 2,
        } | {f"stages.{stage}.{key}": value for stage in stages for key, value in keys.items()}
        return [f"--config.{key}={value}" for key, value in run.items()]

    return make


# Sees every file that is opened, renamed, made or removed, and sends the process the signal SIGNAL,
# before it is done, at the COUNT-th whose description matches PATTERN.
_FATAL = """
import os, re, runpy, signal, sys

pattern, left = re.compile(os.environ["PATTERN"]), int(os.environ["COUNT"])
events = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}

def see(event, arguments):
    global left
    if event in events and pattern.search(" ".join([event, *map(str, arguments[:2])])):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sys.addaudithook(see)
runpy.run_module("aavs_jax.main", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """A function that starts `python -m aavs_jax.main` with some flags, as a `subprocess.Popen`.

    All runs share a compilation cache. With die_at=(pattern, count) the process is killed at the
    count-th change to the file system that matches the pattern, "<event> <path> <second path>".
    cwd is where it runs, with the packages found there.
    """
    cache = tmp_path_factory.mktemp("compilation_cache")

    def make(
        *flags: str,
        die_at: tuple[str, int] | None = None,
        by: int = signal.SIGKILL,
        cwd: Path = REPOSITORY,
        **environment: str,
    ):
        program = ["-c", _FATAL] if die_at else ["-m", "aavs_jax.main"]
        if die_at:
            environment |= {"PATTERN": die_at[0], "COUNT": str(die_at[1]), "SIGNAL": str(int(by))}
        return subprocess.Popen(
            [sys.executable, *program, *flags],
            cwd=cwd,
            env={
                **os.environ,
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return make


@pytest.fixture(scope="session")
def command(start):
    """Like `start`, to the end: returns what was printed; the exit code has to be `code`."""

    def run(*flags: str, code: int = 0, timeout: float = 600.0, **arguments) -> str:
        with start(*flags, **arguments) as process:
            try:
                output, _ = process.communicate(timeout=timeout)
            finally:
                process.kill()
        assert process.returncode == code, output
        return output

    return run


@pytest.fixture(scope="session")
def tiny_run(command, tiny_flags, tmp_path_factory):
    """An undisturbed run of configs/avss.py: (its folder, its flags but --workdir, its output)."""
    folder = tmp_path_factory.mktemp("runs") / "avss"
    flags = ["--config=configs/avss.py", *tiny_flags()]
    return folder, flags, command(*flags, f"--workdir={folder}")


# ---- what Debian's packages of photographs and recordings hold


def _picture(path, index):
    """A disc with a hole, in a colour of its own, in the middle of nothing."""
    y, x = np.mgrid[:60, :80]
    away = np.hypot(y - 30, x - 40)
    rgba = np.zeros((60, 80, 4), np.uint8)
    rgba[..., :3] = (37 * index % 256, 91 * index % 256, 200)
    rgba[..., 3] = 255 * ((away < 25) & (away > 6))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgba).save(path)


def _recording(path, index):
    """A tone of its own with a pause in the middle and silence around it."""
    time = np.arange(22050) / 22050
    tone = 0.3 * np.sin(2 * np.pi * (200 + 60 * index) * time)
    silence = np.zeros(22050 // 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.concatenate([silence, tone, silence, tone, silence]), 22050)


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """Both packages as dpkg-deb -x unpacks them, with drawn media."""
    from data_pipelines.making.audible_stamps.media import PACKAGES
    from data_pipelines.making.audible_stamps.stamps import BACKGROUNDS, TABLE

    root = tmp_path_factory.mktemp("packages")
    share = root / "usr" / "share"
    for index, stamp in enumerate(TABLE):
        _picture(share / "tuxpaint/stamps" / f"{stamp.picture}.png", index)
        ending = "wav" if index % 2 else "ogg"
        sound = share / "tuxpaint/stamps" / f"{stamp.recording}.{ending}"
        if not any(sound.with_suffix(s).exists() for s in (".ogg", ".wav")):
            _recording(sound, index)
    rng = np.random.default_rng(0)
    for index, name in enumerate(BACKGROUNDS):
        folder = share / "tuxpaint" / ("templates" if index else "starters")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(folder / name)
    for package in PACKAGES:
        folder = share / "doc" / package
        folder.mkdir(parents=True)
        with gzip.open(folder / "changelog.Debian.gz", "wt") as file:
            file.write(f"{package} (1:2.3-4) unstable; urgency=low\n")
    return root


@pytest.fixture(scope="session")
def write_noise():
    """A function: path, seconds, frames a second, options of the container -> the path of a film of
    64x48 pixels of noise, seen and heard."""

    def write(path: Path, seconds: int = 2, rate: int = 4, **options: str) -> Path:
        random = np.random.default_rng(0)
        with av.open(str(path), "w", options=options) as file:
            pictures = file.add_stream("libx264", rate=rate)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
            track = file.add_stream("aac", rate=16000, layout="mono")
            for _ in range(seconds * rate):
                frame = random.integers(0, 256, (48, 64, 3)).astype(np.uint8)
                file.mux(pictures.encode(av.VideoFrame.from_ndarray(frame)))
            sound = (0.1 * random.normal(size=(1, 16000 * seconds))).astype(np.float32)
            heard = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
            heard.sample_rate = 16000
            for stream, last in ((pictures, None), (track, heard), (track, None)):
                file.mux(stream.encode(last))
        return path

    return write
