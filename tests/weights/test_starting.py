"""What a phase starts from: everything taken, or initialised at random, named and trained."""

import dataclasses
import json
import math
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aavs_jax.checks import before_data
from aavs_jax.errors import UserError
from aavs_jax.methods import make_method
from aavs_jax.methods.aavs.method import MAY_DIFFER, PARTS, PRETRAINED, RESIZABLE
from aavs_jax.methods.method import Method
from aavs_jax.plan.stage import PhaseName, Stage, make_stages
from aavs_jax.state.checkpoint import SCORE, PhaseCheckpoints
from aavs_jax.state.parameter_folders import save_parameters
from aavs_jax.state.train_state import TrainState
from aavs_jax.weights import card, pretrained
from aavs_jax.weights.keeping import (
    best_parameters,
    check_begun,
    choose,
    chosen_parameters,
    kept_phases,
)
from aavs_jax.weights.naming import in_words
from aavs_jax.weights.starting import check_start, plan_start, starting_parameters
from configs import avss, avss_end_to_end, ms3, s4
from configs.aavs import BACKBONE_ADAPTERS

SHAPES = {
    "audio_encoder/kernel": (3,),
    "backbone/blocks/0/attention_adapter/kernel": (2, 2),
    "backbone/kernel": (4,),
    "decoder/class_predictor/bias": (3,),
    "decoder/class_predictor/kernel": (2, 3),
    "decoder/query_positions": (5, 2),
}
ADAPTER = "backbone/blocks/0/attention_adapter/kernel"
PREDICTOR = "decoder/class_predictor/kernel"
SIZES = {
    "task": "binary",
    "prior": False,
    "backbone": {"embed_dim": 4, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 2},
    "num_queries": 5,
    "num_classes": 2,
}
SOUND = {"audio": {"channels": 1, "fully_connected": [3]}}


def draw(seed, only=SHAPES):
    rng = np.random.default_rng(seed)
    drawn = {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}
    return {path: drawn[path] for path in only}


NETWORK = Method(
    task="binary",
    num_classes=2,
    network=SIZES | SOUND,
    shapes={path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in SHAPES.items()},
    initial=draw,
    loss=None,
    predict=None,
    entries=(),
    front_end=None,
    parts=PARTS,
    resizable=RESIZABLE,
    pretrained=PRETRAINED,
    may_differ=MAY_DIFFER,
)
B = PhaseName("localise", "b")
FRESH = draw(3)
SEVENS = {path: np.full(shape, 7, np.float32) for path, shape in SHAPES.items()}


def config_with(start, fresh=(), zero=(), trains=(".*",), mask2former="", vggish="", allow=()):
    phase = {"start": start, "fresh": fresh, "zero": zero, "trains": trains}
    return {
        "seed": 3,
        "schedule": ("localise",),
        "init": {"mask2former": str(mask2former), "vggish": str(vggish), "allow": allow},
        "stages": {"localise": {"model": SIZES | SOUND, "phases": {"b": phase}}},
    }


def start_of(root, *arguments, **more):
    config = config_with(*arguments, **more)
    return starting_parameters(Stage("localise", config, root, NETWORK), B)


def check_schedule(config, root):
    before_data(make_stages(config, root))


def leave_folder(folder, parameters, kind="mask2former", network=SIZES, **more):
    """A folder of weights, as `aavs_jax.convert` leaves it."""
    save_parameters(folder, {path: jnp.asarray(value) for path, value in parameters.items()})
    card.write(folder, card.Card(kind, network, **more))
    return folder


def leave_sound(folder, value=2.0):
    return leave_folder(folder, {"audio_encoder/kernel": np.full(3, value)}, "vggish", SOUND)


def leave_phase(directory, parameters, scores=(0.8, 0.3)):
    """Validated checkpoints, by default two, the first of which is better."""
    import grain

    data = iter(grain.MapDataset.range(3).to_iter_dataset())
    with PhaseCheckpoints(directory) as checkpoints:
        for step, score in enumerate(scores, 1):
            values = {path: jnp.asarray(value) * step for path, value in parameters.items()}
            checkpoints.save(
                TrainState(jnp.asarray(step), values, {}, {}, ()), data, {SCORE: score}
            )


def assert_same(one, other):
    assert one.keys() == other.keys()
    for path, value in one.items():
        np.testing.assert_array_equal(value, other[path], err_msg=path)


# ---- starting_parameters


def test_nothing_is_the_fresh_draw_of_the_seed(tmp_path, capsys):
    assert_same(start_of(tmp_path, "nothing"), FRESH)
    assert not capsys.readouterr().out


def test_pretrained_joins_the_folders_and_names_what_does_not_fit(tmp_path, capsys):
    ones = {
        "backbone/kernel": np.ones(4),
        PREDICTOR: np.ones((2, 151)),
        "decoder/class_predictor/bias": np.ones(151),
        "decoder/query_positions": np.ones((100, 2)),
        "decoder/silent_embed": np.ones(2),
        "other": np.ones(1),
    }
    network = leave_folder(tmp_path / "network", ones)
    sound = leave_sound(tmp_path / "sound")
    parameters = start_of(tmp_path, "pretrained", mask2former=network, vggish=sound)
    taken = {
        "backbone/kernel": np.ones(4, np.float32),
        "audio_encoder/kernel": np.full(3, 2.0, np.float32),
    }
    assert_same(parameters, FRESH | taken)
    said = capsys.readouterr().out
    assert said == (
        f"[localise/b] takes 2 of 6 arrays from {network}, a Mask2Former (2 classes, 5 queries) "
        f"and {sound}, an audio encoder alone; initialised at random from seed 3: "
        f"{ADAPTER} (not in the pretrained weights), the class predictor (2 classes, not 150), "
        "the query positions (5 queries, not 100); "
        "without a place in this network: decoder/silent_embed, other\n"
    )


def test_the_audio_encoder_of_a_whole_network_serves_unless_another_is_given(tmp_path):
    whole = leave_folder(tmp_path / "aavs", SEVENS, "aavs", SIZES | SOUND | {"task": "semantic"})
    assert_same(start_of(tmp_path, "pretrained", trains=("decoder/.*",), mask2former=whole), SEVENS)
    assert (
        pretrained.load_part(NETWORK, {"mask2former": str(whole), "vggish": ""}, "audio_encoder/")[
            "audio_encoder/kernel"
        ]
        == 7
    ).all()
    sound = leave_sound(tmp_path / "sound")
    parameters = start_of(tmp_path, "pretrained", mask2former=whole, vggish=sound)
    assert_same(parameters, SEVENS | {"audio_encoder/kernel": np.full(3, 2.0, np.float32)})


def test_a_trained_phase_of_another_run_serves_as_pretrained(tmp_path, tiny_stage):
    method = make_method(tiny_stage("localise"), 2)
    before = method.initial(8)
    leave_phase(tmp_path / "run/localise/all", before)
    card.write(tmp_path / "run/localise/all", card.Card("aavs", method.network))
    config = avss.get_config("").to_dict()
    config["stages"]["localise"] = tiny_stage("localise")
    config["stages"]["localise"]["phases"]["all"] |= {
        "start": "pretrained",
        "trains": ("decoder/.*",),
    }
    config["init"]["mask2former"] = str(tmp_path / "run/localise/all")
    config["schedule"] = ("localise",)
    (stage,) = make_stages(config, tmp_path / "new")
    before_data([stage])
    assert_same(starting_parameters(stage, stage.phases[0]), before)


def test_a_phase_hands_over_its_best_not_its_last(tmp_path, capsys):
    leave_phase(tmp_path / "localise" / "a", SEVENS)
    assert_same(start_of(tmp_path, "localise/a"), SEVENS)
    assert capsys.readouterr().out == "[localise/b] takes 6 of 6 arrays from 'localise/a'\n"


def test_parts_of_a_network_come_from_phases_of_their_own(tmp_path):
    leave_phase(tmp_path / "localise" / "a", {"kernel": np.full(3, 7, np.float32)})
    leave_phase(tmp_path / "localise" / "c", {"kernel": np.full(4, 8, np.float32)})
    found = start_of(tmp_path, "localise/a -> audio_encoder, localise/c -> backbone")
    assert (found["audio_encoder/kernel"] == 7).all() and (found["backbone/kernel"] == 8).all()
    own = ("audio_encoder/kernel", "backbone/kernel")
    assert_same(found, FRESH | {path: found[path] for path in own})


NAN = math.nan
BOTH = {"order": ("a", "b"), "best_over_phases": "all"}


@pytest.mark.parametrize(
    ("of_a", "of_b", "last", "overall"),
    [
        ((0.2, 0.6, 0.1), (0.3, 0.5), ("b", 2), ("a", 2)),
        ((0.2, 0.6, 0.1), (0.3, 0.7), ("b", 2), ("b", 2)),
        ((0.2, 0.6, 0.6), (0.6, 0.6), ("b", 1), ("a", 2)),  # of equals the earlier
        ((0.2, 0.1), (NAN, NAN), ("b", 2), ("a", 1)),
        ((NAN, NAN), (0.0, NAN), ("b", 1), ("b", 1)),
        ((NAN, NAN), (NAN, NAN), ("b", 2), ("b", 2)),  # the last, where none has a score
    ],
)
def test_a_stage_keeps_the_best_of_its_last_phase_or_of_all(tmp_path, of_a, of_b, last, overall):
    scores = {"a": of_a, "b": of_b}
    for place, phase in enumerate("ab"):
        leave_phase(tmp_path / phase, {"x": np.ones(1) + 10 * place}, scores[phase])
    for over, (phase, step) in (("last", last), ("all", overall)):
        stage = BOTH | {"best_over_phases": over}
        parameters, chosen = chosen_parameters(tmp_path, stage)
        assert (chosen.phase, chosen.best.step) == (phase, step)
        assert parameters["x"] == (1 + 10 * (phase == "b")) * step
        assert choose(tmp_path, stage, reading=True) == chosen or math.isnan(chosen.best.score)
        words, score = chosen.describe("mIoU"), scores[phase][step - 1]
        if math.isnan(score):
            start = "the last checkpoint, as none has a score"
            assert words == f"{start}: step {step} of phase {phase}"
        else:
            phases = "phases a and b" if over == "all" else "phase b"
            here = f"step {step} of phase {phase}"
            assert words == f"the best of {phases}: {here}, mIoU {score:.3f}"


def test_while_the_second_phase_has_nothing_the_best_so_far_is_the_firsts(tmp_path):
    assert choose(tmp_path, BOTH, reading=True) is None
    leave_phase(tmp_path / "a", SEVENS)
    assert choose(tmp_path, BOTH, reading=True).phase == "a"
    assert not (tmp_path / "b").exists()
    # But to be kept it has to be compared with all.
    with pytest.raises(UserError, match="no readable checkpoint in .*/b/checkpoints: delete"):
        chosen_parameters(tmp_path, BOTH)


@pytest.mark.parametrize(
    ("over", "of_b", "kept", "words"),
    [
        (
            {"best_over_phases": "last"},
            (0.5,),
            "b",
            "the best of phase b: step 1 of phase b, J 0.500",
        ),
        (
            {"best_over_phases": "all"},
            (0.5,),
            "a",
            "the best of phases a and b: step 1 of phase a, J 0.800",
        ),
        # While it trains: b has no checkpoint, or none that was validated.
        (
            {"best_over_phases": "all"},
            (),
            "a",
            "the best of phases a and b: step 1 of phase a, J 0.800",
        ),
        ({"best_over_phases": "last"}, (), None, ""),
    ],
)
def test_a_whole_run_stands_for_what_its_stages_keep(tmp_path, capsys, over, of_b, kept, words):
    stage = {"task": "binary", "order": ["a", "b"], **over}
    record = {"config": {"schedule": ["localise"], "stages": {"localise": stage}}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    leave_phase(tmp_path / "localise/a", SEVENS)
    leave_phase(tmp_path / "localise/b", SEVENS, of_b)
    if kept is None:
        with pytest.raises(UserError, match="none of its stages has reached its last phase"):
            kept_phases(tmp_path)
        return
    assert kept_phases(tmp_path) == [tmp_path / "localise" / kept]
    assert capsys.readouterr().out == f"of {tmp_path}/localise is taken {words}\n"


def test_a_damaged_best_gives_way_to_the_next_of_all_phases(tmp_path, caplog):
    leave_phase(tmp_path / "a", SEVENS, (0.8, 0.3))
    leave_phase(tmp_path / "b", SEVENS, (0.5, 0.7))
    for file in (tmp_path / "a/checkpoints/1/state").rglob("d/*"):
        file.write_bytes(b"")
    _, chosen = chosen_parameters(tmp_path, BOTH)
    assert (chosen.phase, chosen.best.step) == ("b", 2)
    assert "a/checkpoints/1 cannot be read" in caplog.text
    assert (tmp_path / "a/damaged/1").is_dir()


def test_a_phase_without_what_it_never_changes_hands_nothing_over(tmp_path, tiny_stage):
    method = make_method(tiny_stage("localise"), 2)
    parameters = method.initial(0)
    sound = {path for path in parameters if path.startswith("audio_encoder/")}
    directory = tmp_path / "localise" / "a"
    leave_phase(directory, {p: value for p, value in parameters.items() if p not in sound})
    card.write(directory, card.Card("aavs", method.network))
    words = f"{directory} lacks .* arrays of the audio encoder: put the folder {directory}/frozen "
    with pytest.raises(UserError, match=words):
        best_parameters(directory)
    with PhaseCheckpoints(directory) as checkpoints:
        checkpoints.save_frozen({path: jnp.asarray(parameters[path]) for path in sound})
    assert best_parameters(directory).keys() == parameters.keys()
    check_begun(directory, sound, total=9)
    (directory / "frozen").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{directory} has checkpoints but not its folder frozen"):
        check_begun(directory, sound, total=9)
    check_begun(directory, (), total=9)  # it changes all
    check_begun(directory, sound, total=2)  # it is complete
    check_begun(tmp_path / "localise" / "b", sound, total=9)  # it has not begun


def test_classes_that_misfit_from_another_stage_are_named_and_drawn_afresh(tmp_path, capsys):
    before = SEVENS | {PREDICTOR: np.full((2, 9), 7, np.float32)}
    leave_phase(tmp_path / "localise" / "a", before)
    assert_same(start_of(tmp_path, "localise/a"), SEVENS | {PREDICTOR: FRESH[PREDICTOR]})
    said = capsys.readouterr().out
    assert f"initialised at random from seed 3: {PREDICTOR} (2 classes, not 8)\n" in said


def test_fresh_and_zero_win_over_what_is_taken(tmp_path, capsys):
    leave_phase(tmp_path / "localise" / "a", SEVENS)
    parameters = start_of(
        tmp_path, "localise/a", fresh=(BACKBONE_ADAPTERS,), zero=("decoder/query.*",)
    )
    changed = {
        ADAPTER: FRESH[ADAPTER],
        "decoder/query_positions": np.zeros((5, 2), np.float32),
    }
    assert_same(parameters, SEVENS | changed)
    said = capsys.readouterr().out
    assert f"initialised at random from seed 3: {ADAPTER} (as the phase asks)" in said
    assert "set to zero: the query positions" in said


def test_a_start_that_is_not_there_and_patterns_without_match_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"starts from 'localise/z', which is neither"):
        start_of(tmp_path, "localise/z")
    for key in ("fresh", "zero"):
        with pytest.raises(UserError, match=f"'none_such' of 'localise/b {key}' matches none"):
            start_of(tmp_path, "nothing", **{key: ("none_such",)})


def test_weights_that_are_not_those_of_the_card(tmp_path):
    network = leave_folder(tmp_path / "network", SEVENS, "aavs", digest="0" * 64)
    with pytest.raises(UserError, match="not those its card was written for"):
        start_of(tmp_path, "pretrained", mask2former=network)


# ---- nothing stays random unseen


@pytest.mark.parametrize("start", ["nothing", "localise/a"])
def test_what_is_drawn_afresh_must_train_be_zero_or_be_allowed(tmp_path, start):
    held = {path: value for path, value in SEVENS.items() if path != "backbone/kernel"}
    leave_phase(tmp_path / "localise" / "a", held)
    rest = (r"(?!backbone/kernel).*",)
    with pytest.raises(UserError) as error:
        start_of(tmp_path, start, trains=rest)
    words = str(error.value)
    assert "backbone/kernel" in words
    assert "would be initialised at random and never be trained" in words
    assert "config.stages.localise.phases.b.trains" in words
    assert "--config.init.allow=\"('backbone/kernel',)\"" in words and "\n" not in words
    assert not start_of(tmp_path, start, trains=rest, zero=("backbone/kernel",))[
        "backbone/kernel"
    ].any()
    start_of(tmp_path, start, trains=rest, allow=("backbone/k.*",))
    start_of(tmp_path, start, trains=(*rest, "backbone/kernel"))


def test_a_missing_file_is_asked_for_where_its_parameters_would_be_random(tmp_path):
    network = leave_folder(
        tmp_path / "network", {p: v for p, v in SEVENS.items() if "audio" not in p}
    )
    sound = leave_sound(tmp_path / "sound")
    heads = ("decoder/.*",)
    with pytest.raises(UserError) as error:
        start_of(tmp_path, "pretrained", trains=heads, mask2former=network)
    words = str(error.value)
    assert "--config.init.vggish is not given" in words and "audio_encoder/kernel" in words
    assert "vggish-10086976.pth" in words and "swin-base-ade" not in words and ",small" in words
    with pytest.raises(UserError) as error:
        start_of(tmp_path, "pretrained", trains=heads, vggish=sound)
    words = str(error.value)
    assert "--config.init.mask2former is not given" in words and "backbone/kernel" in words
    assert "facebook/mask2former-swin-base-ade-semantic" in words and "10086976" not in words
    # What trains may come from nowhere.
    start_of(tmp_path, "pretrained", mask2former=network)
    start_of(tmp_path, "pretrained", vggish=sound)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("backbone/kernel", (5,)),
        ("backbone/kernel", (4, 1)),
        ("decoder/query_positions", (5, 3)),
        (PREDICTOR, (3, 3)),
        (PREDICTOR, (3, 4)),
        ("decoder/class_predictor/bias", (3, 1)),
    ],
)
def test_only_the_numbers_of_classes_and_queries_may_misfit(path, shape):
    phase = {"start": "pretrained", "fresh": (), "zero": ()}
    with pytest.raises(UserError) as error:
        plan_start(NETWORK, SHAPES | {path: shape}, phase, B)
    assert f"{path} has the shape {list(shape)} in the pretrained weights" in str(error.value)
    assert f"{list(SHAPES[path])} in the network of localise/b" in str(error.value)


def test_weights_of_something_else_altogether():
    phase = {"start": "pretrained", "fresh": (), "zero": ()}
    with pytest.raises(UserError, match=r"nothing in the pretrained weights.*it holds conv1 and"):
        plan_start(NETWORK, {"conv1": (3,)}, phase, B)


def test_many_parameters_in_few_words():
    adapters = [f"backbone/stages/{i}/mlp_adapter/up/bias" for i in range(4)]
    projections = [
        f"audio_proj/{layer}/{p}" for layer in ("hidden", "output") for p in ("kernel", "bias")
    ]
    layers = [f"decoder/layers/{i}/adapter/up/kernel" for i in range(9)]
    paths = dict.fromkeys(["decoder/norm/bias", *adapters, *projections, "zzz"], "why")
    assert in_words(paths | dict.fromkeys(layers, "other") | {layers[0]: ""}, PARTS) == (
        "4 arrays of the backbone adapters (why), decoder/layers/0/adapter/up/kernel, 8 arrays of "
        "the decoder's adapters (other), the audio MLP (why), decoder/norm/bias (why), zzz (why)"
    )


# ---- the folders of config.init, before data is prepared


@pytest.fixture(scope="module")
def paper_networks():
    """Full size, without values: what the published files hold, and the networks of all configs."""
    stages = avss.get_config("/x").to_dict()["stages"]
    both = {name: make_method(stage, 71) for name, stage in stages.items()}
    one_stage = avss_end_to_end.get_config("/x").to_dict()["stages"]["understand"]
    return both | {"end to end": make_method(one_stage, 71)}


def file_shapes(method, classes=150, queries=100):
    """Of a converted facebook/mask2former-swin-base-ade-semantic and of VGGish."""
    added = ("adapter", "audio_", "silent_embed", "sounding_embed", "uncertain_embed")
    network = {
        path: tuple(leaf.shape)
        for path, leaf in method.shapes.items()
        if not any(word in path for word in added)
    }
    network |= {
        "decoder/class_predictor/kernel": (256, classes + 1),
        "decoder/class_predictor/bias": (classes + 1,),
        "decoder/query_positions": (queries, 256),
        "decoder/query_features": (queries, 256),
    }
    sound = {p: tuple(v.shape) for p, v in method.shapes.items() if p.startswith("audio_encoder/")}
    return network, sound


@pytest.mark.parametrize("module", [s4, ms3, avss, avss_end_to_end])
def test_the_papers_recipe_leaves_nothing_random(module, paper_networks):
    config = module.get_config("/x").to_dict()
    for stage_name in config["schedule"]:
        stage = config["stages"][stage_name]
        key = "end to end" if module is avss_end_to_end else stage_name
        method = paper_networks[key]
        shapes = {path: leaf.shape for path, leaf in method.shapes.items()}
        network, sound = file_shapes(method)
        a, b = (stage["phases"][name] for name in "ab")
        whole = Stage(stage_name, config, Path("unused"), method)
        first, second = whole.phases
        start = plan_start(method, network | sound, a, first)
        check_start(start, whole, first)
        binary = stage["task"] == "binary"
        assert not start.homeless and len(start.zero) == 24 * 2 * 4
        # Of 100 queries 30 cannot be taken; the semantic network keeps the file's, frozen.
        assert ("decoder/query_features" in start.drawn) == binary
        assert ("decoder/query_positions" in start.drawn) == binary
        drawn = {path for path in shapes if re_any(path, a["trains"])}
        kept = set() if binary else {"decoder/query_positions"}
        assert start.drawn.keys() == drawn - kept
        # Unused in the binary network, and from the file all the same.
        assert "decoder/layers/0/self_attention/output/kernel" in start.taken
        next_start = plan_start(method, shapes, b, second)
        check_start(next_start, whole, second)
        assert next_start.drawn.keys() == start.zero and not next_start.zero


def re_any(path, patterns):
    return any(re.fullmatch(pattern, path) for pattern in patterns)


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("decoder/query_features", "the query features (not in"),
        ("decoder/norm/scale", "decoder/norm/scale (not in"),
        ("pixel_decoder/.*", "arrays of the pixel decoder (not in"),
    ],
)
def test_a_file_that_lacks_what_the_paper_freezes(lost, words, paper_networks):
    config = avss.get_config("/x").to_dict()
    config["init"] |= {"mask2former": "x", "vggish": "y"}
    phase = config["stages"]["understand"]["phases"]["a"]
    method = paper_networks["understand"]
    network, sound = file_shapes(method)
    held = {p: s for p, s in network.items() if not re_any(p, [lost])}
    stage, name = Stage("understand", config, Path("unused"), method), PhaseName("understand", "a")
    start = plan_start(method, held | sound, phase, name)
    with pytest.raises(UserError) as error:
        check_start(start, stage, name)
    assert words in str(error.value)
    allowing = config | {"init": config["init"] | {"allow": (lost,)}}
    check_start(start, dataclasses.replace(stage, config=allowing), name)
    # 30 queries, as an AAVS of the binary kind has them: positions train, features would not.
    start = plan_start(method, file_shapes(method, 2, 30)[0] | sound, phase, name)
    with pytest.raises(UserError, match=r"^the query features \(100 queries, not 30\) would be"):
        check_start(start, stage, name)


@pytest.fixture
def given(tmp_path):
    """A config of the paper with tiny folders: a file's sizes stand in its card."""
    config = avss.get_config("/no/data").to_dict()
    network = {key: v for key, v in config["stages"]["localise"]["model"].items() if key != "audio"}
    network = json.loads(json.dumps(network)) | {"num_classes": 150, "num_queries": 100}
    sound = {"audio": json.loads(json.dumps(config["stages"]["localise"]["model"]["audio"]))}
    leave_folder(tmp_path / "m2f", {"backbone/patch_norm/bias": np.ones(128)}, network=network)
    leave_folder(tmp_path / "vggish", {"audio_encoder/x": np.ones(3)}, "vggish", sound)
    config["init"] |= {"mask2former": str(tmp_path / "m2f"), "vggish": str(tmp_path / "vggish")}
    return config


def change_card(folder, **changes):
    card.write(folder, dataclasses.replace(card.read(folder), **changes))


def error_of(config, tmp_path):
    with pytest.raises(UserError) as error:
        check_schedule(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_folders_it_is_said_what_to_convert(tmp_path):
    words = error_of(avss.get_config("/no/data").to_dict(), tmp_path)
    assert "localise/a starts from pretrained parameters, and none are given" in words
    assert "--config.init.mask2former=DIR and --config.init.vggish=DIR" in words
    for needed in (
        "facebook/mask2former-swin-base-ade-semantic and vggish-10086976.pth",
        "python -m aavs_jax.convert mask2former-swin-base-ade-semantic --out weights/m2f_swin_b",
        "python -m aavs_jax.convert vggish-10086976.pth --out weights/vggish",
        "--config=...:FOLDER,small",
    ):
        assert needed in words


def test_sizes_that_fit_are_no_error_but_what_is_lacking_is(given, tmp_path):
    words = error_of(given, tmp_path)
    assert "arrays of the backbone (not in the pretrained weights)" in words
    assert "never be trained by localise/a" in words


def test_a_swin_of_other_sizes_names_the_keys_for_every_stage(given, tmp_path):
    network = dict(card.read(tmp_path / "m2f").network)
    tiny = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
    network["backbone"] = network["backbone"] | tiny
    change_card(tmp_path / "m2f", network=network)
    words = error_of(given, tmp_path)
    assert "m2f, a Mask2Former (150 classes, 100 queries), is given as --config.init.mask" in words
    assert "backbone.depths (2, 2, 6, 2) (here (2, 2, 18, 2))" in words
    assert words.endswith("; set --config.backbone=swin_t")
    tiny["window_size"] = 8  # no published one has it
    network["backbone"] = network["backbone"] | tiny
    change_card(tmp_path / "m2f", network=network)
    flags = shlex.split(error_of(given, tmp_path).split("; set ")[1])
    assert sorted(flags) == sorted(
        f"--config.stages.{stage}.model.backbone.{key}"
        for stage in ("localise", "understand")
        for key in (
            "embed_dim=96",
            "depths=(2,2,6,2)",
            "num_heads=(3,6,12,24)",
            "window_size=8",
        )
    )
    for stage in given["stages"].values():
        stage["model"]["backbone"] |= {
            key: tuple(v) if isinstance(v, list) else v for key, v in tiny.items()
        }
    assert "not of the sizes" not in error_of(given, tmp_path)


def test_drop_path_is_no_size(given, tmp_path):
    """Weights may come from another drop-path."""
    network = json.loads(json.dumps(card.read(tmp_path / "m2f").network))
    keys = ("drop_path_schedule", "drop_path_branches", "drop_path_rate")
    network["backbone"] |= dict(zip(keys, ("linear", "both", 0.2), strict=True))
    change_card(tmp_path / "m2f", network=network)
    assert card.read(tmp_path / "m2f").network == network
    assert "not of the sizes" not in error_of(given, tmp_path)


def test_a_preset_that_does_not_fit_is_to_be_left_out(given, tmp_path):
    """It would win over the keys of the stages."""
    network = dict(card.read(tmp_path / "m2f").network)
    network["backbone"] = network["backbone"] | {"window_size": 7}
    change_card(tmp_path / "m2f", network=network)
    given["backbone"] = "swin_b"
    told, keys = error_of(given, tmp_path).split(" and set ")
    assert told.endswith("; leave --config.backbone out")
    flags = shlex.split(keys)
    assert len(flags) == 2 * 6
    for stage in ("localise", "understand"):
        assert f"--config.stages.{stage}.model.backbone.embed_dim=128" in flags
        assert f"--config.stages.{stage}.model.backbone.window_size=7" in flags


def test_heads_show_in_no_shape_and_are_compared_all_the_same(given, tmp_path):
    network = dict(card.read(tmp_path / "m2f").network) | {"num_heads": 4}
    change_card(tmp_path / "m2f", network=network)
    words = error_of(given, tmp_path)
    assert "it has num_heads 4 (here 8)" in words
    assert "--config.stages.understand.model.num_heads=4" in words


def test_another_audio_encoder(given, tmp_path):
    sizes = {"blocks": [[64], [128]], "fully_connected": [4096, 4096, 128]}
    change_card(tmp_path / "vggish", network={"audio": sizes})
    words = error_of(given, tmp_path)
    assert "vggish, an audio encoder alone, is given as --config.init.vggish and is not" in words
    assert "'--config.stages.localise.model.audio.blocks=((64,),(128,))'" in words


def test_folders_given_the_wrong_way_round(given, tmp_path):
    given["init"] |= {"mask2former": str(tmp_path / "vggish"), "vggish": ""}
    words = error_of(given, tmp_path)
    assert "is given as --config.init.mask2former and holds an audio encoder alone" in words
    assert "give it as --config.init.vggish" in words
    given["init"] |= {"mask2former": "", "vggish": str(tmp_path / "m2f")}
    words = error_of(given, tmp_path)
    assert "is given as --config.init.vggish and holds a Mask2Former (150 classes" in words
    assert "give it as --config.init.mask2former" in words


def test_a_bare_swin_is_enough_only_where_what_it_lacks_may_be_random(given, tmp_path):
    network = {"backbone": card.read(tmp_path / "m2f").network["backbone"]}
    change_card(tmp_path / "m2f", kind="swin", network=network)
    words = error_of(given, tmp_path)
    assert "arrays of the pixel decoder" in words and "arrays of the decoder" in words
    for stage in given["stages"].values():
        for phase in stage["phases"].values():
            phase["trains"] = (r"(?!audio_encoder/).*",)
    given["init"]["allow"] = (r"audio_encoder/.*",)
    check_schedule(given, tmp_path / "run")


def test_folders_that_are_none(given, tmp_path):
    for folder, words in (
        (tmp_path / "gone", "there is no folder of weights at"),
        (tmp_path, "has no card.json, so it is no folder of weights"),
    ):
        given["init"]["vggish"] = str(folder)
        said = error_of(given, tmp_path)
        assert said.startswith(f"--config.init.vggish: {words}") or words in said
        assert "--config.init.vggish" in said


def test_what_is_allowed_has_to_be_there(given, tmp_path):
    given["init"]["allow"] = ("decoder/.*", "decodre/.*")
    assert "'decodre/.*' of 'init allow' matches none" in error_of(given, tmp_path)
    given["init"]["allow"] = ("(",)
    assert "'(' of 'init allow' is no regular expression" in error_of(given, tmp_path)


def test_phases_are_checked_against_what_earlier_ones_will_leave(tmp_path):
    config = avss.get_config("").to_dict()
    check_schedule(config, tmp_path)
    config["stages"]["understand"]["phases"]["all"]["trains"] = (r"decoder/.*adapter/.*",)
    words = error_of(config, tmp_path)
    assert words.startswith("the key vectors (not in localise/all) would be initialised at random")
    # How many classes there are is not known yet, so the class predictor is not held against it.
    assert "class" not in words
