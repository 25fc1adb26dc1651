"""Two networks in one step: what they say, what passes between them, and how a run of them goes."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aavs_jax
from aavs_jax.errors import UserError
from aavs_jax.methods import make_method
from aavs_jax.plan.stage import PhaseName
from aavs_jax.scoring import validation as validating
from aavs_jax.state.checkpoint import SCORE
from aavs_jax.state.tree import below
from configs import avss_joint


def tiny_joint(tiny: dict, shared: bool, tells: bool) -> dict:
    """The stage of configs/avss_joint.py in the sizes of a tiny stage of one network."""
    stage = avss_joint.get_config(",shared" if shared else "").stages.together.to_dict()
    sizes = {key: tiny["model"][key] for key in tiny["model"] if key != "prior_keys"}
    stage["model"] |= sizes | {"localise_queries": 3, "tells": tells}
    stage["loss"] |= {"grid": 8}
    stage["data"] |= {key: tiny["data"][key] for key in ("image_size", "label_size", "max_targets")}
    return stage


BOTH = [pytest.param(False, marks=pytest.mark.slow, id="separate"), pytest.param(True, id="shared")]


@pytest.fixture(scope="module", params=BOTH)
def methods(request, tiny_stage):
    """Whether it is shared, the joint method, its parameters, and each of its networks alone."""
    tiny = tiny_stage("understand")
    stage = tiny_joint(tiny, shared=request.param, tells=True)
    joint = make_method(stage, 4)
    alone = {
        "localise": {"task": "binary", "prior": {"train": "none"}, "model": {"num_queries": 3}},
        "understand": {"task": "semantic", "prior": {"train": "true"}, "model": {}},
    }
    of = {
        name: make_method(
            {
                **tiny,
                **own,
                "model": {**tiny["model"], **own["model"], "prior_keys": "linear"},
            },
            4,
        )
        for name, own in alone.items()
    }
    return request.param, joint, joint.initial(0), of


def clips(seconds=2):
    rng = np.random.default_rng(0)
    return {
        "frames": rng.integers(0, 256, (2, seconds, 32, 32, 3)).astype(np.uint8),
        "audio": rng.normal(size=(2, seconds, 96, 64)).astype(np.float32),
        "labels": rng.integers(0, 4, (2, seconds, 32, 32)).astype(np.uint8),
        "labelled": np.ones((2, seconds), bool),
        "valid": np.ones((2, seconds), bool),
    }


def test_it_says_what_both_networks_say_one_after_the_other(methods):
    shared, joint, parameters, alone = methods
    batch = clips()
    where, what = (below(parameters, f"{name}/") for name in ("localise", "understand"))
    inner = joint.inner["localise"].method
    scores = np.asarray(alone["localise"].scores(where, batch))
    np.testing.assert_array_equal(inner.scores(where, batch), scores)
    if shared:
        return  # the second's own pixel decoder is of another task
    told = scores[..., 1] / scores.sum(-1)
    expected = alone["understand"].scores(what, {**batch, "prior_mask": told})
    np.testing.assert_allclose(joint.scores(parameters, batch), expected, rtol=2e-5, atol=2e-6)


def test_a_shared_network_hands_on_what_its_queries_hold(methods):
    """From nothing at first; the parts that both have are there once."""
    shared, joint, parameters, _ = methods
    assert shared == ("feed/kernel" in parameters)
    assert shared == (not any(path.startswith("understand/backbone") for path in parameters))
    if shared:
        assert not parameters["feed/kernel"].any()
        random = np.random.default_rng(0).normal(size=parameters["feed/kernel"].shape)
        fed = {**parameters, "feed/kernel": random.astype(np.float32)}
        before, after = (np.asarray(joint.scores(p, clips())) for p in (parameters, fed))
        assert np.abs(before - after).max() > 1e-3


@pytest.mark.parametrize("tells", [False, True])
def test_a_shared_network_need_not_tell_its_mask(tiny_stage, tells):
    """Its queries feed nothing at first, and so what the first network draws alone is heard of."""
    stage = tiny_joint(tiny_stage("understand"), shared=True, tells=tells)
    method = make_method(stage, 4)
    parameters, scores = method.initial(0), jax.jit(method.scores)
    bias = "localise/decoder/class_predictor/bias"
    changed = {**parameters, bias: parameters[bias] + np.asarray([3, 0, 0], np.float32)}
    before, after = (np.asarray(scores(each, clips())) for each in (parameters, changed))
    assert (np.abs(before - after).max() > 1e-4) == tells
    if not tells:
        with pytest.raises(UserError, match="tells the second nothing"):
            make_method({**stage, "model": {**stage["model"], "shared": False}}, 4)


def test_it_takes_no_prior_mask(tiny_stage):
    stage = tiny_joint(tiny_stage("understand"), shared=True, tells=False)
    with pytest.raises(UserError, match="take no prior mask: set prior.train to 'none'"):
        make_method({**stage, "prior": {**stage["prior"], "train": "true"}}, 4)


def test_a_batch_of_empty_clips_is_no_step_where_they_are_dropped(tiny_stage):
    stage = tiny_joint(tiny_stage("understand"), shared=True, tells=False)
    kept, dropped = (
        make_method({**stage, "data": {**stage["data"], "drop_empty_clips": drop}}, 4)
        for drop in (False, True)
    )
    assert kept.counts is None
    batch = clips()
    assert dropped.counts(batch)
    assert not dropped.counts({**batch, "labels": np.zeros_like(batch["labels"])})


def test_pictures_that_fill_a_pass_count_for_nothing(methods):
    _, joint, parameters, _ = methods
    batch = clips()
    batch["labelled"][1] = False
    rows, _ = joint.slices.split(batch, jax.random.key(0))
    np.testing.assert_array_equal(rows["counts"], batch["labelled"].reshape(-1))
    rows, shares = joint.slices.split(clips(), jax.random.key(0))
    loss = jax.jit(lambda rows: joint.slices.loss(parameters, rows, shares, jnp.float32(0)))
    filling, _ = loss({**rows, "counts": rows["counts"].at[1].set(False)})
    assert filling == loss({**rows, "weight": rows["weight"].at[1].set(0)})[0]
    total, aux = loss(rows)
    assert 0 < filling < total
    of = {
        name: sum(value for key, value in aux.scalars.items() if key.startswith(f"loss/{name}/"))
        for name in ("localise", "understand")
    }
    np.testing.assert_allclose(total, 0.5 * of["localise"] + of["understand"], rtol=1e-5)


def test_what_it_is_teaches_where_it_sounds(methods):
    """With its own loss left out, the first network has a gradient all the same."""
    _, joint, parameters, _ = methods

    def loss(parameters, key):
        rows, shares = joint.slices.split(clips(), key)
        total, aux = joint.slices.loss(parameters, rows, shares, jnp.float32(0))
        own = sum(aux.scalars[f"loss/localise/{term}"] for term in ("class", "mask", "dice"))
        return total - 0.5 * own

    key = jax.random.key(0)
    found = jax.jit(jax.grad(loss))(parameters, key)
    for part in (
        "localise/decoder/mask_embedder/2/kernel",
        "localise/decoder/class_predictor/bias",
    ):
        assert np.abs(found[part]).max() > 1e-6


def test_a_network_within_that_loses_too_much_cannot_be_the_best(methods, monkeypatch, capsys):
    _, joint, _, _ = methods
    within = {"J": 0.8}
    monkeypatch.setattr(
        validating, "_scores_of", lambda stage, name: lambda _: within if stage == 1 else {"m": 0.5}
    )
    monkeypatch.setattr(validating, "_when_begun", lambda *_: 0.805)
    task = type("Task", (), {"score": "m"})
    inner_task = type("Task", (), {"score": "J"})
    labelled = type("Clip", (), {"labelled": (0,)})

    class Inside(int):
        task = inner_task

    class Stage:
        sources = {"val": type("Source", (), {"clips": [labelled]})}
        method = joint

        def inside(self, name):
            return Inside(1)

    Stage.task = task
    validate = validating.validation(Stage(), PhaseName("together", "all"))
    assert validate({})[SCORE] == 0.5 and validate({})["localise J"] == 0.8
    within["J"] = 0.79
    assert math.isnan(validate({})[SCORE])
    assert "cannot be the best (loss.guard is 0.01)" in capsys.readouterr().out


def test_where_its_start_is_gone_nothing_is_guarded(methods, tmp_path, capsys):
    _, joint, _, _ = methods
    stage = type("Stage", (), {"root": tmp_path})()
    stage.phase = lambda name: {"start": "localise/all -> localise, understand/all -> understand"}
    name = PhaseName("together", "all")
    assert validating._when_begun(stage, name, joint.inner["localise"]) is None
    assert "cannot be compared with localise/all, which is gone" in capsys.readouterr().out


@pytest.fixture(scope="module")
def run(command, tiny_flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint") / "run"
    flags = tiny_flags(
        ("localise", "understand", "together"), **{"phases.all.validate_every_epochs": 24.0}
    )
    command("--config=configs/avss_joint.py", *flags, f"--workdir={folder}")
    return folder


@pytest.mark.slow
def test_a_run_ends_with_both_in_one_folder(run):
    rows = json.loads((run / "results.json").read_text())
    of = {(row["stage"], row["metric"]) for row in rows}
    assert {("together", "mIoU"), ("together/localise", "J"), ("understand", "mIoU")} <= of
    # It starts from both stages, and only what gives the first's queries on would be new.
    network = aavs_jax.load(run)
    assert network.card.kind == "aavs_joint" and network.before is None
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validated = [m for m in metrics if m["kind"] == "val" and m["stage"] == "together"]
    assert validated and all("localise J" in m for m in validated)
    assert dataclasses.asdict(network.card)["told"] == {}
