"""What `convert` says to type next works as it stands, whatever the sizes of what was converted."""

import contextlib
import dataclasses
import io
import json
import shlex
import types

import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags as absl_flags
from ml_collections import config_flags

from aavs_jax import checks
from aavs_jax.convert import next_commands, sizes
from aavs_jax.convert.__main__ import main as convert_main
from aavs_jax.methods.aavs.method import MAY_DIFFER, PRETRAINED
from aavs_jax.methods.cavp import config as cavp
from aavs_jax.methods.parts.sizes import BACKBONES, ResNetConfig
from aavs_jax.methods.tpavi import config as tpavi
from aavs_jax.plan.stage import make_stages
from aavs_jax.plan.values import checked
from aavs_jax.state.parameter_folders import save_parameters
from aavs_jax.weights import card
from aavs_jax.weights.card import Card
from aavs_jax.weights.size_keys import flat_sizes, preset_of
from configs import avss, avss_end_to_end, ms3, s4
from data_pipelines.making import audible_shapes

CONFIGS = {"s4": s4, "ms3": ms3, "avss": avss, "avss_end_to_end": avss_end_to_end}
SOUND = {"audio": {"blocks": [[4], [4], [4], [4]], "fully_connected": [16, 8], "channels": 1}}
SWIN = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 2}
M2F = {
    "backbone": SWIN,
    "num_classes": 3,
    "num_queries": 6,
    "feature_size": 32,
    "num_heads": 2,
    "encoder_layers": 1,
    "encoder_ffn": 32,
    "decoder_layers": 1,
    "decoder_ffn": 32,
}


def leave(folder, kind: str, network: dict) -> None:
    """A folder of weights of a kind, with random numbers."""
    rng = np.random.default_rng(5)
    shapes = sizes.wanted(kind, network)
    save_parameters(
        folder,
        {p: jnp.asarray(0.1 * rng.standard_normal(s, np.float32)) for p, s in shapes.items()},
    )
    card.write(folder, Card(kind, network))


def converted(*arguments) -> str:
    """What the command prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        assert convert_main([str(argument) for argument in arguments]) == 0
    return said.getvalue()


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, str]:
    """Name of a folder of weights -> what converting to it said. `vggish` lies beside some."""
    origin, out = tmp_path_factory.mktemp("origin"), tmp_path_factory.mktemp("my weights")
    leave(origin / "vggish", "vggish", SOUND)
    leave(origin / "m2f", "mask2former", M2F)
    leave(origin / "swin", "swin", {"backbone": SWIN})
    found = {name: converted(origin / name, "--out", out / name) for name in ("m2f",)}
    found["vggish"] = converted(origin / "vggish", "--out", out / "vggish")
    for name in ("m2f", "swin"):
        found[f"{name} beside"] = converted(origin / name, "--out", out / f"{name} beside")
    both = (origin / "m2f", origin / "vggish")
    for task in ("binary", "semantic"):
        found[f"fit {task}"] = converted(*both, "--fit", task, "--out", out / task)
    return found | {"out": str(out)}


def commands(text: str, what: str = "train") -> list[list[str]]:
    """The commands after `train:` and the like, as a shell takes them apart."""
    lines = [line for line in text.splitlines() if line.startswith(f"{what}: ")]
    return [shlex.split(line.partition(":")[2], comments=True) for line in lines]


def config_of(command: list[str]) -> dict:
    """What the command's flags make, as the program parses them."""
    assert command[:3] == ["python", "-m", "aavs_jax.main"]
    arguments = ["test", *(word for word in command[3:] if not word.startswith("--evaluate="))]
    values = absl_flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=arguments)
    values(arguments)
    return values.config.to_dict()


def check(config: dict, root) -> None:
    """As the program does before it prepares data."""
    checks.before_data(make_stages(checked(config), root))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("m2f beside", marks=pytest.mark.slow),
        "swin beside",
        "fit binary",
        "fit semantic",
    ],
)
def test_the_training_commands_are_accepted_as_they_are(said, tmp_path, name):
    found = commands(said[name])
    recipes = [command[3].removeprefix("--config=") for command in found]
    fitted = {"fit binary": ["configs/s4.py"], "fit semantic": ["configs/avss.py"]}
    wanted = fitted.get(name, ["configs/s4.py", "configs/avss.py"])
    assert recipes == [f"{recipe}:/data/avsbench" for recipe in wanted]
    for command in found:
        given = f"--config.init.vggish={said['out']}/vggish"
        assert (given in command) != name.startswith("fit")  # which holds one
        assert not any(word.endswith("=DIR") for word in command)
        config = config_of(command)
        check(config, tmp_path / "run")
        for stage in config["stages"].values():
            model = flat_sizes(stage["model"])
            assert model["backbone.depths"] == (1, 1, 1, 1)
            assert model["audio.fully_connected"] == (16, 8)


def test_what_is_still_to_be_made_is_a_DIR_with_the_command_that_makes_it(said, tmp_path):
    for name, key in (("m2f", "vggish"), ("vggish", "mask2former")):
        assert f"DIR: of {PRETRAINED[key].file}, with python -m aavs_jax" in said[name]
        for command in commands(said[name]):
            assert f"--config.init.{key}=DIR" in command
    # Put together, they are whole.
    (command, _), (other, _) = commands(said["m2f"]), commands(said["vggish"])
    replaced = [f"--config.init.vggish={said['out']}/vggish" if "DIR" in w else w for w in command]
    sound = [word for word in other if ".model.audio." in word]
    assert sound
    check(config_of([*replaced, *sound]), tmp_path / "run")


@pytest.mark.slow
def test_the_training_command_trains(said, command, tmp_path):
    """As printed, but for the data's folder; and what makes it a matter of seconds."""
    audible_shapes.make(tmp_path / "raw", clips=10, size=32, progress=False)
    (printed, _) = commands(said["m2f beside"])
    printed[3] = printed[3].replace("/data/avsbench", str(tmp_path / "raw"))
    keys = {
        "order": "('a',)",
        "phases.a.epochs": 0.2,
        "data.image_size": 32,
        "data.label_size": 32,
        "loss.num_points": 64,
    }
    output = command(
        *printed[3:],
        *(f"--config.stages.localise.{key}={value}" for key, value in keys.items()),
        "--config.eval.sounds=('right',)",
        f"--workdir={tmp_path}/run",
    )
    assert f"from {said['out']}/m2f beside, a Mask2Former" in output
    assert json.loads((tmp_path / "run/results.json").read_text())


# ---- sizes


def lines_for(
    network: dict, kind: str = "mask2former", out="weights/x", new=(), heard=False
) -> str:
    new = dict.fromkeys(new, "drawn")
    held = {**new, "audio_encoder/x": 0} if heard else new
    weights = types.SimpleNamespace(card=Card(kind, network, new=new), parameters=held)
    return "\n".join(next_commands.what_next(weights, next_commands.Path(out)))


def swin(name: str, **changes) -> dict:
    """As a file's shapes tell a Swin."""
    sizes = json.loads(json.dumps(BACKBONES[name]))
    return {"backbone": sizes | {"patch_size": 4, "mlp_ratio": 4.0} | changes}


@pytest.mark.parametrize("name", BACKBONES)
def test_a_published_swin_is_one_key(name):
    for command in commands(lines_for(swin(name))):
        preset = [word for word in command if "backbone" in word]
        assert preset == ([] if name == "swin_b" else [f"--config.backbone={name}"])
        assert not any(".model." in word for word in command)


def test_other_swins_are_a_key_of_every_stage():
    one, two = commands(lines_for(swin("swin_b", window_size=7)))
    key = "model.backbone.window_size=7"
    assert [word for word in one if "model" in word] == [f"--config.stages.localise.{key}"]
    assert [word for word in two if "model" in word] == [
        f"--config.stages.{stage}.{key}" for stage in ("localise", "understand")
    ]
    assert preset_of(flat_sizes(swin("swin_t", window_size=8))) == ""


def test_a_drawn_audio_encoder_is_replaced_by_one_of_its_sizes(said):
    network = swin("swin_b") | SOUND | {"task": "binary", "num_classes": 2, "prior": False}
    for audio, given in ((SOUND["audio"], f"{said['out']}/vggish"), ({"blocks": [[5]]}, "DIR")):
        network["audio"] = SOUND["audio"] | audio
        new = ["audio_encoder/x", "audio_proj/x"]
        (command,) = commands(
            lines_for(network, "aavs", next_commands.Path(said["out"]) / "x", new)
        )
        assert f"--config.init.vggish={given}" in command


def test_the_queries_of_the_semantic_stage_are_those_of_the_file():
    for queries, words in ((100, []), (200, ["--config.stages.understand.model.num_queries=200"])):
        one, two = commands(lines_for(swin("swin_b") | {"num_queries": queries}))
        assert not any("num_queries" in word for word in one)
        assert [word for word in two if "num_queries" in word] == words


def test_aavs_files_are_evaluated_with_the_recipe_of_their_task():
    for task, prior, recipe in (
        ("binary", False, "configs/s4.py"),
        ("semantic", True, "configs/avss.py"),
        ("semantic", False, "configs/avss_end_to_end.py"),
    ):
        network = swin("swin_b") | {"task": task, "num_classes": 2, "prior": prior}
        (command,) = commands(lines_for(network, "aavs"), "evaluate")
        assert command[3:] == [
            f"--config={recipe}:/data/avsbench",
            "--evaluate=weights/x",
            "--config.init.vggish=DIR",
        ]
        # What lacks some of its parameters is to be trained.
        assert not commands(lines_for(network, "aavs", new=["audio_proj/x"]), "evaluate")
        (command,) = commands(lines_for(network, "aavs", new=["audio_proj/x"]))
        assert command[3] == f"--config={recipe}:/data/avsbench"
    assert not commands(lines_for(network | {"task": "binary", "prior": True}, "aavs"), "evaluate")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_recipes_are_those_of_the_configs(name):
    config = CONFIGS[name].get_config("/data").to_dict()
    if "understand" in config["stages"]:
        stage = config["stages"]["understand"]
        assert stage["model"]["num_queries"] == next_commands.QUERIES
        assert not any("query_features" in pattern for pattern in stage["phases"]["a"]["trains"])
    if name != "ms3":
        assert next_commands.STAGES[f"configs/{name}.py"] == tuple(config["schedule"])
    for stage in config["stages"].values():
        keys = flat_sizes(stage["model"])
        assert keys.keys() == next_commands.MODEL.keys()
        decisive = keys.keys() - MAY_DIFFER
        assert {k: keys[k] for k in decisive} == {k: next_commands.MODEL[k] for k in decisive}


def as_found(config) -> dict:
    """Sizes as a file's card has them."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


@pytest.mark.parametrize(
    ("kind", "network", "says", "recipes"),
    [
        ("cavp", as_found(cavp.AVSBENCH), "evaluate", ["cavp.py:/data/avsbench,s4"]),
        (
            "cavp",
            as_found(cavp.VPO) | {"task": "semantic"},
            "evaluate",
            ["cavp.py:/data/vpo,vpo_ss"],
        ),
        ("tpavi", as_found(tpavi.RESNET_50), "evaluate", ["tpavi.py:/data/avsbench,s4"]),
        ("pvt", {"pvt": as_found(tpavi.TPAVIConfig().pvt)}, "train", ["tpavi", "avsegformer"]),
        ("resnet", {"resnet": as_found(ResNetConfig())}, "train", ["tpavi", "avsegformer"]),
        (
            "resnet",
            {"resnet": {"deep_stem": True, "depths": [3, 4, 23, 3]}},
            "train",
            ["cavp.py:/data/vpo,vpo_ss"],
        ),
        (
            "resnet",
            {"resnet": {"deep_stem": True, "depths": [3, 4, 6, 3]}},
            "train",
            ["cavp.py:/data/avsbench"],
        ),
    ],
    ids=["cavp", "cavp of 3 s", "tpavi", "pvt", "resnet", "deep stem 101", "deep stem 50"],
)
def test_other_methods_take_what_is_theirs_at_its_size(kind, network, says, recipes):
    found = commands(lines_for(network, kind), says)
    assert len(found) == len(recipes)
    for command, recipe in zip(found, recipes, strict=True):
        assert command[3].startswith(f"--config=configs/{recipe}")
        # The file has none, and of VPO none is published.
        assert ("--config.init.vggish=DIR" in command) == ("vpo" not in recipe)
        assert ("--config.as_published=True" in command) == (kind == "cavp")
        (stage,) = config_of(command)["stages"].values()
        model = flat_sizes(stage["model"])
        if f"{kind}.depths" in model and "backbone" in model:
            assert model["backbone"] == kind
        if says == "evaluate":
            side = 512 if "vpo" in recipe else 224
            assert (stage["data"]["image_size"], stage["data"]["label_size"]) == (side, side)
        sizes = flat_sizes(network).items()
        assert not [key for key, size in sizes if key in model and model[key] != size]


def test_sound_inside_is_not_asked_for():
    network = as_found(tpavi.TPAVIConfig())
    (command,) = commands(lines_for(network, "tpavi", heard=True), "evaluate")
    data = "--config.stages.localise.data."
    assert command[3:] == [
        "--config=configs/tpavi.py:/data/avsbench,s4",
        "--evaluate=weights/x",
        f"{data}image_size=224",
        f"{data}label_size=224",
    ]


def test_an_audio_encoder_beside_is_named_for_all_methods(said):
    network = {"pvt": as_found(tpavi.TPAVIConfig().pvt)}
    for command in commands(lines_for(network, "pvt", f"{said['out']}/x")):
        assert f"--config.init.vggish={said['out']}/vggish" in command
