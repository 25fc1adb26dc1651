"""Golden files: where they are and what they are of; AAVS's key table."""

import importlib.util
import json
import pathlib
import zipfile

import numpy as np
import pytest

from aavs_jax.convert.formats import FORMATS
from tests.parity.golden import KINDS, Names

HERE = pathlib.Path(__file__).parent
SHARED = HERE.parents[2] / "shared"
FOLDERS = (SHARED / "golden", SHARED / "neighbours" / "golden", HERE / "fixtures")


@pytest.fixture(scope="session")
def checkpoint_names() -> Names:
    """The key table of AAVS, of whole files or of parts."""
    return Names(FORMATS["aavs"])


@pytest.fixture(scope="session")
def torch_aavs():
    """The module `torch_aavs.py`; imported here only, as PyTorch takes seconds to load."""
    spec = importlib.util.spec_from_file_location("torch_aavs", HERE / "torch_aavs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------- golden files


def golden_kind(path: pathlib.Path) -> str | None:
    """A key of KINDS, as the fixtures are called; None of a file that is of none.

    The test run fails, saying so, if there is no such file or it is no golden file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = set(arrays.files)
            config = json.loads(str(arrays["config_json"])) if "config_json" in names else {}
    except FileNotFoundError:
        pytest.fail(f"golden file not found: {path}", pytrace=False)
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        pytest.fail(f"not a golden file (no readable .npz): {path}: {error}", pytrace=False)
    return next((kind for kind, fits in KINDS.items() if fits(names, config)), None)


def pytest_generate_tests(metafunc):
    kinds = KINDS.keys() & set(metafunc.fixturenames)
    if not kinds:
        return
    paths = [pathlib.Path(path) for path in metafunc.config.getoption("--golden")]
    given = bool(paths)
    if not given:
        paths = [path for folder in FOLDERS for path in sorted(folder.glob("*.npz"))]
    kind_of = {path: golden_kind(path) for path in paths}
    for path, kind in kind_of.items():
        # In a folder may be those of methods that are not here.
        if given and kind is None:
            pytest.fail(f"not a golden file of what is tested here: {path}", pytrace=False)
    for kind in kinds:
        ours = [path for path in paths if kind_of[path] == kind]
        ids = [path.stem for path in ours]
        metafunc.parametrize(kind, ours, ids=ids, indirect=True, scope="module")


# The file of each network that is replayed in every test run; AAVS's comes with the repository.
OF_AAVS = "torch_avss"
REPLAYED = {OF_AAVS, "tpavi_semantic_tiny", "avsegformer_semantic_tiny", "cavp_tiny"}


@pytest.hookimpl(tryfirst=True)  # before -m takes its choice
def pytest_collection_modifyitems(config, items):
    """Networks of other files are slow: they take long to compile. So are CAVP's stereo sound,
    gradients of all but AAVS, and steps, since tests/state holds optimisers against torch's. Of a
    file that is named nothing is.
    """
    if config.getoption("--golden"):
        return
    for item in items:
        given = item.callspec.params.values() if hasattr(item, "callspec") else ()
        files = {value.stem for value in given if isinstance(value, pathlib.Path)}
        other = item.cls is not None and files and not files & REPLAYED
        stereo = item.cls is not None and "stereo" in map(str, given)
        name = getattr(item, "originalname", "")
        backward = name.startswith("test_gradient") and OF_AAVS not in files
        if other or stereo or backward or name == "test_three_steps":
            item.add_marker(pytest.mark.slow)


def loaded(request) -> dict[str, np.ndarray]:
    """A golden file, loaded."""
    return dict(np.load(request.param, allow_pickle=False))


for kind in KINDS:
    globals()[kind] = pytest.fixture(scope="module", name=kind)(loaded)
