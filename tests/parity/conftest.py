"""Golden files: where they are; and an AAVS checkpoint's tensors as our parameters."""

import importlib.util
import pathlib
import types
import zipfile

import numpy as np
import pytest

from aavs_jax.convert.formats import FORMATS
from aavs_jax.convert.naming import inverse_plan, pattern
from aavs_jax.methods.parts.key_tables import TENSORS

HERE = pathlib.Path(__file__).parent
FOLDERS = (HERE.parents[2] / "shared" / "golden", HERE / "fixtures")

# ---------------------------------------------------------------------------- checkpoint names

AAVS = FORMATS["aavs"]


def checkpoint_rule(name: str) -> tuple[tuple[str, ...], str] | None:
    """Our paths and the transform of a checkpoint's tensor; None for one that is left over.

    Raises:
      KeyError: if it is neither known nor left over, or known twice.
    """
    left_over = [None for known in AAVS.left_over if pattern(known.theirs).fullmatch(name)]
    found = left_over + [(step.ours, step.how) for step in inverse_plan(AAVS, [name])]
    if len(found) != 1:
        raise KeyError(f"{name} fits {len(found)} rules")
    return found[0]


def to_parameters(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A checkpoint's tensors, all or some, as our parameters by path.

    Raises:
      KeyError: for a tensor without a rule, and for a parameter given twice.
    """
    parameters = {}
    for name, tensor in tensors.items():
        rule = checkpoint_rule(name)
        if rule is None:
            continue
        paths, how = rule
        for path, part in zip(paths, np.split(tensor, len(paths)), strict=True):
            if path in parameters:
                raise KeyError(f"{path} is given twice, at last by {name}")
            parameters[path] = np.ascontiguousarray(TENSORS[how][0](part))
    return parameters


def to_checkpoint(parameters: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """The inverse, for the names asked for."""
    tensors = {}
    for name in names:
        paths, how = checkpoint_rule(name)
        parts = [TENSORS[how][1](np.asarray(parameters[path])) for path in paths]
        tensors[name] = np.concatenate(parts)
    return tensors


@pytest.fixture(scope="session")
def checkpoint_names():
    """The functions above, for tests: the key table of AAVS, of whole files or of parts."""
    return types.SimpleNamespace(
        rule=checkpoint_rule, to_parameters=to_parameters, to_checkpoint=to_checkpoint
    )


@pytest.fixture(scope="session")
def torch_aavs():
    """The module `torch_aavs.py`; imported here only, as PyTorch takes seconds to load."""
    spec = importlib.util.spec_from_file_location("torch_aavs", HERE / "torch_aavs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------- golden files


def golden_kind(path: pathlib.Path) -> str:
    """'network_golden' or 'audio_golden', as the fixtures are called.

    The test run fails, saying so, if there is no such file or it is no golden file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = set(arrays.files)
    except FileNotFoundError:
        pytest.fail(f"golden file not found: {path}", pytrace=False)
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        pytest.fail(f"not a golden file (no readable .npz): {path}: {error}", pytrace=False)
    if {"config_json", "pixel_values", "class_logits", "loss", "grad_names"} <= names:
        return "network_golden"
    if {"audio/log_mel_examples", "binary/0/scores", "semantic/miou"} <= names:
        return "audio_golden"
    pytest.fail(f"not a golden file (no network, no audio and metrics): {path}", pytrace=False)


def pytest_generate_tests(metafunc):
    kinds = {"network_golden", "audio_golden"} & set(metafunc.fixturenames)
    if not kinds:
        return
    paths = [pathlib.Path(path) for path in metafunc.config.getoption("--golden")]
    if not paths:
        paths = [path for folder in FOLDERS for path in sorted(folder.glob("*.npz"))]
    for kind in kinds:
        ours = [path for path in paths if golden_kind(path) == kind]
        ids = [path.stem for path in ours]
        metafunc.parametrize(kind, ours, ids=ids, indirect=True, scope="module")


@pytest.fixture(scope="module")
def network_golden(request) -> dict[str, np.ndarray]:
    """A golden file of a network, loaded."""
    return dict(np.load(request.param, allow_pickle=False))


@pytest.fixture(scope="module")
def audio_golden(request) -> dict[str, np.ndarray]:
    """A golden file of audio and metrics, loaded."""
    return dict(np.load(request.param, allow_pickle=False))
