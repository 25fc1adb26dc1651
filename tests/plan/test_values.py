"""A config's keys and values, before anything starts."""

import dataclasses
import math
import sys
import types

import pytest

from aavs_jax.errors import UserError
from aavs_jax.methods.parts.sizes import BACKBONES
from aavs_jax.plan.values import checked
from configs import aavs, avss, avss_end_to_end, binary, ms3, s4, tpavi

CONFIGS = [avss, avss_end_to_end, binary, ms3, s4]


@pytest.mark.parametrize("module", CONFIGS, ids=lambda module: module.__name__)
@pytest.mark.parametrize("argument", ["", "/x", "/x,small"])
def test_every_config_passes_and_keeps_its_values(module, argument):
    config = module.get_config(argument)
    assert checked(config) == checked(checked(config)) == config.to_dict()


# ---- keys


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (
            "chekpoint_every",
            ["config.chekpoint_every is no key", "did you mean 'checkpoint_every'"],
        ),
        (
            "stages.localise.data.imagesize",
            ["config.stages.localise.data.imagesize", "did you mean 'image_size'"],
        ),
        ("stages.understand.phases.all.epoch", ["phases.all.epoch is", "did you mean 'epochs'"]),
        (
            "stages.localise.phases.all.optimizer.weight_deca",
            ["optimizer.weight_deca", "did you mean 'weight_decay'"],
        ),
        ("stages.localise.model.backbone.depth", ["backbone.depth is", "did you mean 'depths'"]),
        ("stages.localise.loss.dice", ["loss.dice is no key", "did you mean 'dice_weight'"]),
        (
            "eval.xyzzy",
            ["config.eval.xyzzy is no key", "put it with its unit into configs/base.py"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unknown_key_wherever_it_is_written(key, words):
    config = avss.get_config()
    *parents, last = key.split(".")
    inner = config
    for name in parents:
        inner = inner[name]
    inner[last] = 5
    with pytest.raises(UserError) as error:
        checked(config)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_key():
    config = avss.get_config()
    del config.stages.localise.loss["grid"]
    with pytest.raises(UserError, match="config.stages.localise.loss.grid is missing: give it"):
        checked(config)


@dataclasses.dataclass(frozen=True)
class Sizes:
    task: str = "binary"
    width: int = 8


@dataclasses.dataclass(frozen=True)
class Loss:
    temperature: float = 0.1


def test_keys_of_another_method_are_those_of_its_dataclasses(monkeypatch):
    """And the pretrained parts that it names."""
    mine = types.SimpleNamespace(SIZES=Sizes, LOSS=Loss, PRETRAINED={"resnet": None}, make=None)
    monkeypatch.setitem(sys.modules, "a_package.mine", mine)
    config = avss.get_config().to_dict()
    keys = {"method": "a_package.mine", "model": {"width": 4}, "loss": {"temperature": 0.2}}
    config["stages"]["localise"] |= keys
    config["init"]["resnet"] = ""
    assert checked(config)["stages"]["localise"]["model"] == {"width": 4}
    config["stages"]["localise"]["model"] = {"widht": 4}
    with pytest.raises(UserError, match=r"localise\.model\.widht is no key .* mean 'width'"):
        checked(config)


# ---- values

STAGE, PHASE = "stages.localise.", "stages.localise.phases.all."
IMPOSSIBLE = [
    ("seed", -1),
    ("seed", 1.5),
    ("log_every", 0),
    ("checkpoint_every", "often"),
    ("matmul_precision", "foo"),
    ("data.num_workers", -1),
    ("data.clips", 2),
    ("data.size", 8),
    ("data.cache", 1),
    ("as_published", "yes"),
    ("mesh.fsdp", 0),
    ("schedule", ()),
    ("schedule", ("localise", "localise")),
    ("eval.sounds", ("right", "right")),
    ("eval.sounds", ("right", "loud")),
    ("eval.sounds", ()),
    ("eval.frames_per_batch", 0),
    ("eval.examples", -1),
    ("dtype", "float16"),
    ("backbone", "resnet"),
    ("batch_size", -2),
    ("epochs", -1.0),
    ("epochs", math.inf),
    (STAGE + "task", "both"),
    (STAGE + "order", ()),
    (STAGE + "best_over_phases", "both"),
    (STAGE + "loss.mask_weight", -5.0),
    (STAGE + "loss.no_object_weight", math.nan),
    (STAGE + "loss.num_points", 0),
    (STAGE + "loss.importance_ratio", 1.5),
    (STAGE + "loss.oversample_ratio", 0.5),
    (STAGE + "model.num_queries", 0),
    (STAGE + "model.backbone.depths", (1, 0, 1, 1)),
    (STAGE + "model.backbone.drop_path_rate", 1.0),
    (STAGE + "model.backbone.drop_path_schedule", "rising"),
    (STAGE + "model.backbone.drop_path_branches", "mlp"),
    (STAGE + "model.dtype", "int8"),
    (STAGE + "data.batch_size", 0),
    (STAGE + "data.image_size", 5000),
    (STAGE + "data.label_size", 0),
    (STAGE + "data.max_targets", 0),
    (STAGE + "data.sampling", "second"),
    (STAGE + "data.features", "ram"),
    (STAGE + "data.features_gib", 0.0),
    (STAGE + "data.augment.flip", 2.0),
    (STAGE + "data.augment.resized_crop.probability", -0.5),
    (STAGE + "prior.train", "true"),
    ("stages.understand.prior.train", "predict"),
    ("stages.understand.prior.mixture", 1.2),
    ("stages.understand.prior.evaluate", ("predicted", "predicted")),
    ("stages.understand.prior.evaluate", "predicted"),
    (PHASE + "epochs", math.inf),
    (PHASE + "epochs", 0.0),
    (PHASE + "validate_every_epochs", math.nan),
    (PHASE + "trains", (".*", 3)),
    (PHASE + "optimizer.learning_rate", 0.0),
    (PHASE + "optimizer.schedule", "linear"),
    (PHASE + "optimizer.name", "lamb"),
    (PHASE + "optimizer.betas", (0.9, 1.0)),
    (PHASE + "optimizer.betas", (0.9,)),
    (PHASE + "optimizer.betas", ("0.9", "0.999")),
    (PHASE + "optimizer.eps", 0.0),
    (PHASE + "optimizer.momentum", 1.0),
    (PHASE + "optimizer.power", 0.0),
    (PHASE + "optimizer.groups", ((".*", "adam"),)),
    (PHASE + "optimizer.groups", ((".*", {"betas": 0.9}),)),
    (PHASE + "optimizer.groups", ((".*", {"name": "lion"}),)),
    (PHASE + "optimizer.groups", ((".*", {"lr": 0.1}),)),
    (PHASE + "optimizer.groups", ((".*", {"multipliers": ()}),)),
    (PHASE + "optimizer.multipliers", ("backbone/.*", 0.1)),
    (PHASE + "optimizer.multipliers", (("backbone/.*",),)),
    (PHASE + "optimizer.multipliers", ((0.1, "backbone/.*"),)),
    (PHASE + "optimizer.multipliers", (("backbone/.*", 0.0),)),
    (PHASE + "optimizer.multipliers", (("backbone/.*", math.inf),)),
    (PHASE + "optimizer.warmup_steps", -1),
    (PHASE + "optimizer.weight_decay", -0.1),
    (PHASE + "optimizer.clip_norm", -1.0),
]


@pytest.mark.parametrize(("key", "value"), IMPOSSIBLE, ids=lambda value: str(value))
def test_a_value_that_cannot_be_is_named_by_its_key(key, value):
    config = avss.get_config().to_dict()
    inner = config
    *parents, last = key.split(".")
    for name in parents:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(UserError) as error:
        checked(config)
    said = str(error.value)
    assert f"config.{key}" in said or (".augment." in key and f"config.{STAGE}data.augment" in said)
    assert "give" in said or "name" in said
    assert "\n" not in said


def test_numbers_of_the_built_in_data_do_not_matter_elsewhere():
    config = avss.get_config("/x,small")
    config.data.clips = 2
    assert checked(config)["data"]["clips"] == 2


def test_multipliers_are_pairs():
    config = avss.get_config().to_dict()
    optimizer = config["stages"]["localise"]["phases"]["all"]["optimizer"]
    optimizer["multipliers"] = (("backbone/.*", 0.1), (".*", 2))
    assert checked(config) == config
    optimizer["multipliers"] = (("backbone/.*", 0),)
    with pytest.raises(
        UserError, match=r"give pairs of .* factor above 0, .* left out of .* trains"
    ):
        checked(config)


# ---- what all stages share


def test_one_place_for_what_all_stages_share():
    config = avss.get_config("/x")
    config.backbone, config.dtype, config.batch_size = "swin_t", "bfloat16", 4
    config.epochs = 30.0
    values = checked(config)
    for stage in values["stages"].values():
        assert stage["model"]["backbone"].items() >= BACKBONES["swin_t"].items()
        assert (stage["model"]["dtype"], stage["data"]["batch_size"]) == ("bfloat16", 4)
    epochs = {
        name: [stage["phases"][phase]["epochs"] for phase in stage["order"]]
        for name, stage in values["stages"].items()
    }
    # The paper's 30 epochs, in the proportion of the code's 60.
    assert epochs == {"localise": [15.0, 15.0], "understand": [10.0, 20.0]}
    assert checked(values) == values


def test_the_presets_are_whole():
    keys = aavs.stage("binary", small=False).model.backbone.keys()
    for sizes in BACKBONES.values():
        assert sizes.keys() <= set(keys)
    paper = aavs.stage("binary", small=False).model.backbone.to_dict()
    assert paper.items() >= BACKBONES["swin_b"].items()


def test_what_all_stages_share_has_to_be_a_key_of_some(monkeypatch):
    mine = types.SimpleNamespace(SIZES=Sizes, LOSS=Loss, PRETRAINED={}, make=None)
    monkeypatch.setitem(sys.modules, "a_package.mine", mine)
    config = avss.get_config().to_dict()
    for stage in config["stages"].values():
        stage |= {"method": "a_package.mine", "model": {"width": 4}, "loss": {"temperature": 0.2}}
    config["init"] = {"allow": ()}
    for key, value in (("backbone", "swin_t"), ("dtype", "bfloat16")):
        with pytest.raises(UserError, match=f"config.{key} is '{value}', and no stage's model"):
            checked(config | {key: value})


def test_a_preset_of_swin_is_no_backbone_of_another_name():
    config = tpavi.get_config().to_dict()
    with pytest.raises(UserError, match="config.backbone is 'swin_t', and no stage's model"):
        checked(config | {"backbone": "swin_t"})
