"""AVSegFormer's recipes stand in the configs number for number."""

import re
from pathlib import Path

import pytest

from aavs_jax.plan.stage import make_stage
from configs import avsegformer, avsegformer_stepping_stones

NAMES = {"s4": "localise", "ms3": "localise", "avss": "understand"}


def paper(recipe: str) -> tuple[dict, dict]:
    config = avsegformer.get_config(f"/x,{recipe}").to_dict()
    assert config["schedule"] == (NAMES[recipe],) and config["seed"] == 123
    return config, config["stages"][NAMES[recipe]]


@pytest.mark.parametrize(
    ("recipe", "clips", "seconds", "pixels", "subsets", "epochs"),
    [
        ("s4", 2, 5, 512, ("v1s",), {"head": 5, "all": 25}),
        ("ms3", 2, 5, 512, ("v1m",), {"head": 10, "all": 50}),
        ("avss", 4, 10, 224, (), {"all": 30}),
    ],
)
def test_the_recipe(recipe, clips, seconds, pixels, subsets, epochs):
    _, stage = paper(recipe)
    data = stage["data"]
    assert stage["task"] == ("semantic" if recipe == "avss" else "binary")
    assert (data["batch_size"], data["seconds"], data["sampling"]) == (clips, seconds, "film")
    assert data["image_size"] == data["label_size"] == pixels
    assert data["resize"] == ("centre_crop" if recipe == "avss" else "squash")
    assert data["bucket_by_length"] == (recipe != "avss")
    assert data["subsets"] == subsets and data["shuffle"] and not data["drop_empty_clips"]
    assert stage["prior"]["train"] == "none" and stage["best_over_phases"] == "all"
    assert {name: stage["phases"][name]["epochs"] for name in stage["order"]} == epochs
    assert stage["loss"] == {"mix_weight": 0.1}
    for phase in stage["phases"].values():
        optimizer = phase["optimizer"]
        assert (optimizer["name"], optimizer["learning_rate"]) == ("adamw", 2e-5)
        assert (optimizer["betas"], optimizer["eps"]) == ((0.9, 0.999), 1e-8)
        assert (optimizer["weight_decay"], optimizer["no_decay"]) == (0.01, ())
        assert (optimizer["schedule"], optimizer["warmup_steps"]) == ("constant", 0)
        assert (optimizer["clip_norm"], optimizer["multipliers"]) == (0, ())
    starts = [stage["phases"][name]["start"] for name in stage["order"]]
    assert starts == ["pretrained", f"{NAMES[recipe]}/head"][: len(starts)]


def test_what_trains():
    config, stage = paper("s4")
    method = make_stage(config, "localise", Path("unused")).method
    groups = {}
    for path in method.shapes:
        groups.setdefault(path.split("/")[0], path)
    for name, frozen in (("head", {"backbone", "audio_encoder"}), ("all", {"audio_encoder"})):
        (pattern,) = stage["phases"][name]["trains"]
        still = {part for part, path in groups.items() if not re.fullmatch(pattern, path)}
        assert still == frozen
    # Nothing of a ResNet is frozen so far that its running statistics would stand still.
    stage["model"]["backbone"] = "resnet"
    method = make_stage(config, "localise", Path("unused")).method
    assert method.mutable and all(path.startswith("backbone/") for path in method.mutable)


@pytest.mark.parametrize("argument", ["", "/x"])
def test_under_stepping_stones(argument):
    config = avsegformer_stepping_stones.get_config(argument).to_dict()
    assert config["schedule"] == ("localise", "understand")
    localise, understand = config["stages"]["localise"], config["stages"]["understand"]
    assert (localise["task"], understand["task"]) == ("binary", "semantic")
    assert localise["writes_masks"] and localise["prior"]["train"] == "none"
    assert understand["prior"]["masks"] == "localise"
    assert understand["prior"]["train"] == ("true" if argument else "predicted")
    assert understand["data"] == localise["data"]
    if argument:
        alone = avsegformer.get_config(argument).to_dict()["stages"]["understand"]
        assert understand["phases"] == alone["phases"] == localise["phases"]
