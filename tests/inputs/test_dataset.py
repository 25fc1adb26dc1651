"""From a config's data folder to prepared data: what is said of a folder that is not there."""

import pytest

from aavs_jax.errors import UserError
from aavs_jax.inputs import dataset


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("small", "small: for the small network on a folder, write FOLDER,small"),
        ("a,smal", "a,smal: check the path; ',small' is the only option"),
        ("x/..//./none", "/none: check the path behind the config's colon, or leave it out"),
    ],
)
def test_a_folder_that_is_not_there(tmp_path, monkeypatch, folder, words):
    monkeypatch.chdir(tmp_path)
    data = {"folder": folder, "clips": 10, "size": 32, "seed": 0}
    with pytest.raises(UserError) as error:
        dataset.prepared(data, tmp_path / "runs/x")
    assert f"there is no data folder {tmp_path}/" in str(error.value) and words in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["small", "my,data"])
def test_folders_may_be_called_so(tmp_path, monkeypatch, name):
    """Once, however their path is written."""
    folder = tmp_path / name
    folder.mkdir()
    asked = []
    monkeypatch.setattr(dataset, "prepare", lambda raw, target: asked.append((raw, target)))
    data = {"clips": 10, "size": 32, "seed": 0}
    for path in (folder, f"{tmp_path}/x/..//{name}"):
        dataset.prepared({**data, "folder": str(path)}, tmp_path / "runs/x")
    assert asked[0] == asked[1] and asked[0][0] == folder
