"""The configs: every argument loads, and the paper's schedule stands there number for number."""

from pathlib import Path

import pytest
from ml_collections import config_flags

from aavs_jax.methods import make_method
from aavs_jax.plan.stage import make_stage
from aavs_jax.state import tree
from configs import (
    aavs,
    avsegformer,
    avsegformer_stepping_stones,
    avss,
    avss_end_to_end,
    binary,
    ms3,
    s4,
    tpavi,
    tpavi_stepping_stones,
)
from configs.argument import parse_argument, parse_recipe
from data_pipelines.loading.augment import Augmentations, augmentations
from data_pipelines.loading.augment_pictures import Flip
from data_pipelines.prepared.source import Clip

CONFIGS = {
    "s4": s4,
    "ms3": ms3,
    "binary": binary,
    "avss": avss,
    "avss_end_to_end": avss_end_to_end,
    "tpavi": tpavi,
    "tpavi_stepping_stones": tpavi_stepping_stones,
    "avsegformer": avsegformer,
    "avsegformer_stepping_stones": avsegformer_stepping_stones,
}
AUDIO_MLP = 197_376
VGGISH = 72_141_184
CLASSES = 71  # of AVSS, background counted

every_config = pytest.mark.parametrize("name", CONFIGS)
every_argument = pytest.mark.parametrize("argument", ["", "/x", "/x,small"])


def paper(name: str) -> dict:
    return CONFIGS[name].get_config("/x").to_dict()


@pytest.fixture(scope="module")
def networks():
    """Paper-size networks, abstractly, each built once."""
    built = {}

    def network(name: str, stage_name: str):
        if (name, stage_name) not in built:
            stage = paper(name)["stages"][stage_name]
            built[name, stage_name] = make_method(stage, CLASSES)
        return built[name, stage_name]

    return network


@every_config
@every_argument
def test_loads_locks_and_every_stage_is_described(name, argument):
    config = CONFIGS[name].get_config(argument)
    config.lock()
    with pytest.raises((AttributeError, KeyError)):
        config.unheard_of = 1
    assert config.data.folder == argument.partition(",")[0]
    assert (config.eval.protocols, config.eval.save_masks) == ("stepping_stones", False)
    assert config.schedule
    assert set(config.schedule) == set(config.stages)
    for stage in config.stages.values():
        assert stage.order and set(stage.order) == set(stage.phases)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        # The second stages of two, of the paper's size, differ little from the one-stage network.
        pytest.param(name, argument, marks=[pytest.mark.slow] * slow)
        for name in CONFIGS
        for argument in ("", "/x")  # of "/x,small" the stages are those of ""
        for slow in [bool(argument) and name.endswith("stepping_stones")]
    ],
)
def test_every_pattern_matches_and_the_network_can_be(name, argument):
    config = CONFIGS[name].get_config(argument).to_dict()
    # As make_stages does, but with the data's classes.
    stages = [make_stage(config, name, Path("unused"), CLASSES) for name in config["schedule"]]
    paths = {path: None for stage in stages for path in stage.method.shapes}
    tree.matching(paths, config["init"]["allow"], "init allow")
    for stage in stages:
        assert stage.method.num_classes == (2 if stage.task.name == "binary" else CLASSES)


@every_config
def test_loads_through_the_flag_from_any_folder(name, monkeypatch, tmp_path):
    from absl import flags

    path = CONFIGS[name].__file__
    monkeypatch.chdir(tmp_path)
    arguments = ["test", f"--config={path}:/x,small", "--config.seed=7"]
    monkeypatch.setattr("sys.argv", arguments)  # ml_collections looks for overrides there
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    values(arguments)
    assert (values.config.seed, values.config.data.folder) == (7, "/x")
    assert values.config.is_locked


@every_config
def test_an_unknown_option_is_an_error(name):
    with pytest.raises(ValueError, match=r"FOLDER.*\[,small\]: there is no option 'smal'"):
        CONFIGS[name].get_config("/x,smal")


def test_small_is_what_an_empty_folder_means():
    assert parse_argument("") == ("", True)
    assert parse_argument("/x") == ("/x", False)
    assert parse_argument("/x,small") == ("/x", True)
    assert parse_argument("/a,b,") == ("/a,b", False)
    assert parse_argument("/a,b,small") == ("/a,b", True)
    for module in CONFIGS.values():
        embedded = module.get_config("").to_dict()
        given = module.get_config("/x,small").to_dict()
        assert embedded["stages"] == given["stages"] != module.get_config("/x").to_dict()["stages"]


def test_a_config_may_have_several_recipes():
    def parsed(argument):
        return parse_recipe(argument, ("avss", "s4"))

    assert parsed("") == ("", "avss", True)
    assert parsed("/x") == ("/x", "avss", False)
    assert parsed("/x,s4") == ("/x", "s4", False)
    assert parsed("/x,s4,small") == ("/x", "s4", True)
    assert parsed("/x,small") == ("/x", "avss", True)
    assert parsed(",s4") == ("", "s4", True)
    assert parsed("/a,b,,small") == ("/a,b", "avss", True)
    assert parsed("/a,b,s4") == ("/a,b", "s4", False)
    with pytest.raises(
        ValueError, match=r"FOLDER\[,avss\|s4\]\[,small\]: there is no option 'ms3'"
    ):
        parsed("/x,ms3")


BOTH = [
    ("s4", "localise"),
    ("ms3", "localise"),
    ("avss", "localise"),
    ("avss", "understand"),
    ("avss_end_to_end", "understand"),
]


@pytest.mark.parametrize(("name", "stage_name"), BOTH)
def test_the_papers_recipe_that_all_share(name, stage_name):
    config = paper(name)
    assert config["seed"] == 3407
    stage = config["stages"][stage_name]
    assert stage["order"] == ("a", "b")
    a, b = stage["phases"]["a"], stage["phases"]["b"]
    assert (a["start"], b["start"]) == ("pretrained", f"{stage_name}/a")
    assert stage["best_over_phases"] == "all"
    assert a["epochs"] + b["epochs"] == 60
    assert a["epochs"] == (30 if stage["task"] == "binary" else 20)
    clipping = 0.01 if stage["task"] == "binary" else 0.0
    for phase, rate in ((a, 1e-3), (b, 1e-4)):
        assert phase["optimizer"] == {
            "name": "adamw",
            "betas": (0.9, 0.999),
            "eps": 1e-8,
            "momentum": 0.0,
            "learning_rate": rate,
            "schedule": "constant",
            "power": 0.9,
            "warmup_steps": 0,
            "schedule_lag": 0,
            "groups": (),
            "multipliers": (),
            "weight_decay": 0.05,
            "no_decay": (),
            "clip_norm": clipping,
        }
        assert phase["validate_every_epochs"] == 1  # the best epoch is kept
    # Backbone adapters: the identity in a, freshly drawn in b.
    assert (a["zero"], a["fresh"]) == ((aavs.BACKBONE_ADAPTERS,), ())
    assert (b["zero"], b["fresh"]) == ((), (aavs.BACKBONE_ADAPTERS,))
    assert {**stage["loss"]} == {
        "class_weight": 2.0,
        "mask_weight": 5.0,
        "dice_weight": 5.0,
        "no_object_weight": 0.1,
        "num_points": 12544,
        "oversample_ratio": 3.0,
        "importance_ratio": 0.75,
        "grid": 0,
    }
    data = stage["data"]
    assert (data["batch_size"], data["sampling"]) == (1, "clip")
    assert augmentations(data["augment"], ()) == Augmentations(0.0, False, (), ())
    assert stage["model"]["audio"]["channels"] == 1
    assert (data["image_size"], data["label_size"]) == (384, 224)
    assert stage["model"]["num_queries"] == (30 if stage["task"] == "binary" else 100)
    backbone = stage["model"]["backbone"]
    drop_path = {key: value for key, value in backbone.items() if key.startswith("drop_path")}
    assert drop_path == {
        "drop_path_rate": 0.3,
        "drop_path_schedule": "constant",
        "drop_path_branches": "attention",
    }
    assert stage["model"]["dtype"] == "float32"


def test_what_the_papers_recipes_differ_in():
    stages = {(name, stage): paper(name)["stages"][stage] for name, stage in BOTH}
    rows = {
        key: (
            stage["task"],
            stage["data"]["subsets"],
            stage["data"]["seconds"],
            stage["data"]["shuffle"],
            stage["data"]["drop_empty_clips"],
        )
        for key, stage in stages.items()
    }
    everything = ()  # whatever is there
    assert rows == {
        ("s4", "localise"): ("binary", ("v1s",), 5, True, False),
        ("ms3", "localise"): ("binary", ("v1m",), 5, True, True),
        ("avss", "localise"): ("binary", everything, 10, True, False),
        ("avss", "understand"): ("semantic", everything, 10, False, False),
        ("avss_end_to_end", "understand"): ("semantic", everything, 10, False, False),
    }


@every_config
def test_the_small_network_flips_and_all_else_can_be_turned_on(name):
    for stage in CONFIGS[name].get_config("").to_dict()["stages"].values():
        assert stage["best_over_phases"] == "last"
        options = stage["data"]["augment"]
        chosen = augmentations(options, ())
        assert (chosen.flip, chosen.requests, chosen.elements) == (0.5, (), (Flip(),))
        clips = [Clip("v1s", f"{i}", 5, (0,), (1 + i,), False) for i in range(2)]
        everything = {
            key: value | {"probability": 1.0} if isinstance(value, dict) else 1.0
            for key, value in options.items()
        }
        chosen = augmentations(everything, clips)
        assert len(chosen.requests) + len(chosen.elements) == len(options) == 8


def test_how_the_stages_of_avss_hand_over():
    small = ("earlier", "soft", ("both", "true"))
    paper = ("true", "hard", ("predicted", "true"))
    for argument, handed_over in (("/x", paper), ("/x,small", small), ("", small)):
        config = avss.get_config(argument).to_dict()
        localise, understand = (config["stages"][name] for name in config["schedule"])
        assert (localise["task"], understand["task"]) == ("binary", "semantic")
        assert localise["writes_masks"] and not understand["writes_masks"]
        assert localise["prior"]["train"] == "none"
        prior = understand["prior"]
        assert prior["masks"] == "localise"
        assert (prior["train"], prior["kind"], prior["evaluate"]) == handed_over
        assert (localise["earlier"] > 0) == (prior["train"] == "earlier")
    end_to_end = avss_end_to_end.get_config("").to_dict()["stages"]["understand"]
    assert end_to_end["prior"]["train"] == "none"
    assert end_to_end["prior"]["evaluate"] == ("none",)


def test_end_to_end_trains_as_long_as_both_stages_together():
    both = avss.get_config("").to_dict()["stages"]
    epochs = [phase["epochs"] for stage in both.values() for phase in stage["phases"].values()]
    alone = avss_end_to_end.get_config("").to_dict()["stages"]["understand"]["phases"]
    assert sum(phase["epochs"] for phase in alone.values()) == sum(epochs)


@pytest.mark.parametrize(
    ("name", "stage_name", "total", "a", "b"),
    [
        ("s4", "localise", 114_551_675, 512_451 + AUDIO_MLP, 7_522_115 + AUDIO_MLP),
        ("ms3", "localise", 114_551_675, 512_451 + AUDIO_MLP, 7_522_115 + AUDIO_MLP),
        ("avss", "localise", 114_551_675, 512_451 + AUDIO_MLP, 7_522_115 + AUDIO_MLP),
        ("avss", "understand", 114_606_016, 738_568, 7_748_232),
        # Without the three key vectors of 256 numbers.
        ("avss_end_to_end", "understand", 114_606_016 - 768, 738_568 - 768, 7_748_232 - 768),
    ],
)
def test_as_many_parameters_train_as_the_papers_code_trains(
    networks, name, stage_name, total, a, b
):
    method = networks(name, stage_name)
    assert tree.count(method.shapes) == total + VGGISH
    stage = paper(name)["stages"][stage_name]
    counts = []
    for phase in stage["phases"].values():
        trainable, _ = tree.partition(method.shapes, phase["trains"], name)
        counts.append(tree.count(trainable))
        assert not any(path.startswith("audio_encoder/") for path in trainable)
    assert counts == [a, b]


@pytest.mark.parametrize(("name", "stage_name"), BOTH)
def test_only_the_backbones_adapters_come_in_with_b(networks, name, stage_name):
    method, stage = networks(name, stage_name), paper(name)["stages"][stage_name]
    a, b = (
        tree.matching(method.shapes, stage["phases"][phase]["trains"], name) for phase in ("a", "b")
    )
    added = tree.matching(method.shapes, (aavs.BACKBONE_ADAPTERS,), name)
    assert b == a | added and not a & added
    assert tree.count({path: method.shapes[path] for path in added}) == 7_009_664
