"""What goes in comes out bit for bit, in every layout and both ways."""

import numpy as np
import pytest

from aavs_jax.state.parameter_folders import load_left_over
from aavs_jax.weights import card as cards

# A file -> the option that gives it back.
BACK = {
    "mask2former": "huggingface",
    "mask2former_shards": "huggingface",
    "mask2former_bin": "huggingface",
    "mask2former_half": "huggingface",
    "swin": "huggingface",
    "swin_head": "huggingface",
    "swin_mim": "huggingface",
    "swin_timm": "origin",
    "swin_microsoft": "origin",
    "aavs_s4": "aavs",
    "aavs_avss": "aavs",
    "aavs_s4_wrapped": "aavs",
    "vggish": "vggish",
    "vggish_pca": "vggish",
}
# Other spellings on the disk of what another name here holds as well: ours are alike.
SPELLINGS = {"mask2former_shards", "mask2former_bin", "swin_mim", "aavs_s4_wrapped"}
# What is kept as it is under our own names: one of each kind, half precision and what is left over.
AS_OURS = {"mask2former_half", "swin_head", "aavs_avss", "vggish_pca"}


@pytest.fixture(scope="module")
def ours(published, tmp_path_factory):
    """A function: name of a file -> the folder of weights made of it, once."""
    from aavs_jax.convert.__main__ import main

    folder, made = tmp_path_factory.mktemp("ours"), {}

    def make(name: str):
        if name not in made:
            made[name] = folder / name
            assert main([str(published[name]), f"--out={made[name]}"]) == 0
        return made[name]

    return make


def assert_equal_folders(left, right, same):
    """Parameters, what was left over, and all that cards say but for where they come from."""
    (a, card), (b, other) = cards.weights(left), cards.weights(right)
    same(a, b)
    same(load_left_over(left), load_left_over(right))
    for field in ("kind", "network", "classes", "new", "left_over", "stored_as", "digest"):
        assert getattr(card, field) == getattr(other, field), field


@pytest.mark.parametrize("name", BACK)
def test_theirs_to_ours_to_theirs(name, ours, published, convert, tensors_of, same, tmp_path):
    back = tmp_path / ("back" if BACK[name] == "huggingface" else published[name].name)
    convert(ours(name), f"--to={BACK[name]}", "--out", back)
    same(tensors_of(back), tensors_of(published[name]))


@pytest.mark.parametrize(
    ("name", "to"),
    [
        pytest.param(n, to, marks=[] if n in often else [pytest.mark.slow])
        for to, often in (("origin", set(BACK) - SPELLINGS), ("safetensors", AS_OURS))
        for n in BACK
    ],
)
def test_ours_to_theirs_to_ours(name, to, ours, convert, same, tmp_path):
    convert(ours(name), f"--to={to}", "--out", tmp_path / "theirs")
    convert(tmp_path / "theirs", "--out", tmp_path / "ours")
    assert_equal_folders(ours(name), tmp_path / "ours", same)


@pytest.mark.parametrize("name", ["mask2former", "mask2former_bin", "swin"])
def test_the_config_of_transformers_comes_back(name, ours, published, convert, tmp_path, read_json):
    convert(ours(name), "--to=huggingface", "--out", tmp_path / "back")
    assert read_json(tmp_path / "back" / "config.json") == read_json(
        published[name] / "config.json"
    )


def test_transformers_loads_an_export_strictly(ours, convert, tmp_path):
    """Without the origin's config.json, too."""
    import torch
    import transformers

    convert(ours("mask2former_bin"), "--to=huggingface", "--out", tmp_path / "m2f")
    # A Swin that came in the naming of Microsoft's release has no config.json.
    convert(ours("swin_microsoft"), "--to=huggingface", "--out", tmp_path / "swin")
    for kind, folder in (
        (transformers.Mask2FormerForUniversalSegmentation, "m2f"),
        (transformers.SwinBackbone, "swin"),
    ):
        network, report = kind.from_pretrained(tmp_path / folder, output_loading_info=True)
        norms = {name for name in report["missing_keys"] if "hidden_states_norms" in name}
        assert set(report["missing_keys"]) == (norms if folder == "swin" else set())
        with torch.no_grad():
            network(torch.zeros(1, 3, 64, 64))


def test_source_to_target_in_one_go(published, ours, convert, same, tensors_of, tmp_path):
    convert(published["aavs_s4"], "--to=safetensors", "--out", tmp_path / "one.safetensors")
    convert(ours("aavs_s4"), "--to=safetensors", "--out", tmp_path / "two.safetensors")
    same(tensors_of(tmp_path / "one.safetensors"), tensors_of(tmp_path / "two.safetensors"))


def test_a_prefix_is_said_and_comes_back(published, ours, convert, same, tensors_of, tmp_path):
    """'swin.' of a classifier; a wrapper's only to where the file came from."""
    import torch

    said = convert(published["swin_head"], "--to=origin", "--out", tmp_path / "origin").out
    assert "taken off: prefix 'swin.'" in said
    tensors = tensors_of(published["swin_head"])
    assert {"classifier.weight", "swin.layernorm.weight"} <= tensors.keys()
    same(tensors_of(tmp_path / "origin"), tensors)
    plain = tensors_of(published["swin"])
    wrapped = {"net." + name: torch.from_numpy(value) for name, value in plain.items()}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    convert(tmp_path / "wrapped.pth", "--to=huggingface", "--out", tmp_path / "back")
    same(tensors_of(tmp_path / "back"), plain)


def test_the_form_of_the_origin_is_known_after_a_step(published, ours, convert, tmp_path):
    """A safetensors file comes back as one, though its window was resized meanwhile."""
    from safetensors.numpy import load_file

    convert(ours("swin_timm"), "--window=5", "--out", tmp_path / "wide")
    convert(tmp_path / "wide", "--to=origin", "--out", tmp_path / "back")
    assert load_file(tmp_path / "back").keys() == load_file(published["swin_timm"]).keys()


@pytest.mark.slow
def test_two_files_of_aavs_and_back(published, convert, same, tensors_of, tmp_path):
    """The network and its audio encoder, in one folder and as two files again."""
    convert(published["aavs_avss"], published["vggish_pca"], "--out", tmp_path / "whole")
    said = convert(tmp_path / "whole", "--to=aavs", "--out", tmp_path / "back.pth").out
    assert "back.vggish.pth" in said and "left behind" not in said
    same(tensors_of(tmp_path / "back.pth"), tensors_of(published["aavs_avss"]))
    same(tensors_of(tmp_path / "back.vggish.pth"), tensors_of(published["vggish_pca"]))
    convert(tmp_path / "back.pth", tmp_path / "back.vggish.pth", "--out", tmp_path / "again")
    assert_equal_folders(tmp_path / "whole", tmp_path / "again", same)
    convert(tmp_path / "whole", "--to=safetensors", "--out", tmp_path / "file")
    convert(tmp_path / "file", "--out", tmp_path / "third")
    assert_equal_folders(tmp_path / "whole", tmp_path / "third", same)


def test_allowed_tensors_come_back(changed, convert, same, tensors_of, tmp_path):
    import torch

    path = changed(
        "vggish", lambda state: state.update(extra=torch.arange(4), steps=torch.tensor(7))
    )
    convert(path, "--allow", "extra", "steps", "--out", tmp_path / "ours")
    convert(tmp_path / "ours", "--to=vggish", "--out", tmp_path / "back.pth")
    same(tensors_of(tmp_path / "back.pth"), tensors_of(path))
    assert load_left_over(tmp_path / "ours")["steps"] == np.int64(7)


def test_an_unfitting_number_of_half_precision_is_kept_whole(ours, convert, tmp_path):
    """A network that was trained on after it came as float16 loses nothing on its way back."""
    from aavs_jax.convert import exporting, importing

    parameters, card = cards.weights(ours("mask2former_half"))
    parameters["decoder/norm/scale"] = parameters["decoder/norm/scale"] + np.float32(1e-7)
    weights = importing.Weights(parameters, {}, card)
    exporting.write_folder(tmp_path / "trained", weights)
    convert(tmp_path / "trained", "--to=huggingface", "--out", tmp_path / "theirs")
    convert(tmp_path / "theirs", "--out", tmp_path / "back")
    found, _ = cards.weights(tmp_path / "back")
    assert all(np.array_equal(found[path], value) for path, value in parameters.items())
