"""Data that tests of this folder share."""

import pytest

from data_pipelines.making import audible_shapes
from data_pipelines.prepare import prepare


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Audible Shapes, twelve clips of 32 pixels, prepared."""
    folder = tmp_path_factory.mktemp("data")
    audible_shapes.make(folder / "raw", clips=12, size=32, progress=False)
    prepare(folder / "raw", folder / "prepared", progress=False)
    return folder / "prepared"
