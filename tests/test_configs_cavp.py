"""CAVP's recipes stand in the config number for number."""

import re
from pathlib import Path

import pytest

from aavs_jax.plan.stage import make_stage, make_stages
from aavs_jax.plan.values import checked
from aavs_jax.state.optimizer import rate_factors
from configs import cavp

# Of each kind of parameter one, without and with decay.
SOME = {
    "backbone/stages/1/0/layers/0/conv/kernel": (1.0, True),
    "backbone/stem/0/norm/scale": (1.0, False),
    "projector/hidden/bias": (1.0, True),
    "fusion/norm/scale": (1.0, True),
    "aspp/branches/1/kernel": (10.0, True),
    "aspp/norm/bias": (10.0, False),
    "reduction/kernel": (10.0, True),
    "reduction_norm/scale": (10.0, False),
    "head/convolutions/0/kernel": (10.0, True),
    "head/classifier/bias": (10.0, False),
}


@pytest.mark.parametrize(
    ("recipe", "task", "pixels", "epochs", "decay"),
    [
        ("s4", "binary", 224, 60, 1e-4),
        ("ms3", "binary", 224, 60, 1e-4),
        ("avss", "semantic", 512, 80, 1e-4),
        ("vpo_ss", "semantic", 512, 80, 5e-4),
        ("vpo_ms", "semantic", 512, 80, 5e-4),
        ("vpo_msmi", "semantic", 512, 80, 5e-4),
    ],
)
def test_the_recipe(recipe, task, pixels, epochs, decay):
    config = checked(cavp.get_config(f"/x,{recipe}"))
    (name,) = config["schedule"]
    stage = config["stages"][name]
    data, phase = stage["data"], stage["phases"]["all"]
    assert (stage["task"], config["seed"]) == (task, 666)
    assert data["subsets"] == cavp.SUBSETS[recipe]
    assert (data["batch_size"], data["sampling"], data["seconds"]) == (16, "frame", 1)
    assert data["image_size"] == data["label_size"] == pixels
    vpo = recipe.startswith("vpo")
    augment = data["augment"]
    assert augment["flip"] == 0.5
    assert augment["scaled_crop"]["probability"] == (task == "semantic")
    assert augment["colour_jitter"]["probability"] == vpo
    if task == "semantic":
        assert len(augment["scaled_crop"]["scales"]) == (7 if vpo else 3)
    assert stage["model"]["heard"] == (3 if vpo else 1)
    loss = stage["loss"]
    assert (loss["views"], loss["temperature"], loss["contrastive_weight"]) == (512, 0.1, 1.0)
    assert (loss["replaced_share"], loss["replaced_after_epochs"]) == (0.5, 1.0)
    assert loss["classes"] == ("clips" if recipe == "vpo_ss" else "labels")
    assert (phase["epochs"], phase["start"]) == (epochs, "pretrained")
    optimizer = phase["optimizer"]
    assert (optimizer["name"], optimizer["momentum"]) == ("sgd", 0.9)
    assert (optimizer["learning_rate"], optimizer["weight_decay"]) == (1e-3, decay)
    assert (optimizer["schedule"], optimizer["power"], optimizer["schedule_lag"]) == (
        "poly",
        0.9,
        1,
    )


def test_rates_and_decay():
    config = checked(cavp.get_config("/x,avss"))
    stage = make_stage(config, "understand", Path("unused"))
    optimizer = config["stages"]["understand"]["phases"]["all"]["optimizer"]
    ((sound, keys),) = optimizer["groups"]
    paths = [path for path in stage.method.shapes if path not in stage.method.mutable]
    factors = rate_factors(optimizer, paths, "test")
    (spared,) = optimizer["no_decay"]
    for path, (factor, decays) in SOME.items():
        assert factors[path] == factor and bool(re.fullmatch(spared, path)) != decays, path
    assert {factors[path] for path in paths if re.fullmatch(sound, path)} == {1.0}
    assert keys == {"name": "adam", "schedule": "constant", "weight_decay": 0.0}


def test_as_published_changes_keys_of_the_stage():
    """By the semantic script everything but the head is trained ten times faster."""
    config = cavp.get_config("/x,avss")
    config.as_published = True
    found = checked(config)["stages"]["understand"]
    factors = found["phases"]["all"]["optimizer"]
    paths = list(SOME)
    rates = rate_factors(factors, paths, "test")
    assert {path: rates[path] for path in paths if path.startswith("head")} == {
        path: 1.0 for path in paths if path.startswith("head")
    }
    assert {rates[path] for path in paths if not path.startswith("head")} == {10.0}
    assert found["loss"]["silence_in_queue"] and found["model"]["published_excerpts"]


@pytest.mark.parametrize("argument", ["", "/x,small", "/x,s4,small", "/x,vpo_msmi,small"])
def test_the_small_form_of_any_folder(argument, tmp_path):
    config = checked(cavp.get_config(argument))
    (stage,) = make_stages(config, tmp_path)
    assert stage.keys["model"]["heard"] == 1 and stage.keys["data"]["subsets"] == ()
    stereo = cavp.get_config(argument)
    stereo.stages[stage.name].model.audio.channels = 2
    (stage,) = make_stages(checked(stereo), tmp_path)
    assert stage.method.front_end.channels == 2
