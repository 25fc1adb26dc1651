"""What is found to be wrong before anything is done."""

import dataclasses
import math
import types
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aavs_jax import checks, schedule
from aavs_jax.errors import UserError
from aavs_jax.inputs import dataset
from aavs_jax.inputs.batches import eval_batches, evaluations, on_data, sounds_to_hear
from aavs_jax.inputs.priors import check_masks_are_there
from aavs_jax.methods import make_method
from aavs_jax.methods.method import Method, Prediction
from aavs_jax.methods.objectives.set_prediction_config import LossConfig
from aavs_jax.plan.stage import Stage, make_stage, make_stages
from aavs_jax.run.workdir import Workdir
from aavs_jax.schedule import train_and_evaluate
from aavs_jax.scoring.showcase import Showcase
from aavs_jax.state.checkpoint import SCORE, PhaseCheckpoints
from aavs_jax.state.sharding import make_mesh
from aavs_jax.state.train_state import TrainState
from configs import avss, s4
from data_pipelines.errors import DataError
from data_pipelines.loading.partners import other_sounds
from data_pipelines.making import audible_shapes
from data_pipelines.prepare import prepare
from data_pipelines.prepared.source import Clip, open_source

SHAPES = {"audio/kernel": (3,), "backbone/adapter": (2, 2), "head/kernel": (4,), "queries": (5,)}
NETWORK = Method(
    task="binary",
    num_classes=2,
    network={},
    shapes={path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in SHAPES.items()},
    initial=None,
    loss=None,
    predict=None,
    entries=(),
    front_end=None,
)


def stage_of(keys, root=Path("unused"), sources=None, **config) -> Stage:
    config = {"schedule": ("localise",), "stages": {"localise": keys}, **config}
    return Stage("localise", config, root, NETWORK, sources or {})


def check_schedule(config, root):
    checks.before_data(make_stages(config, root))


def opened(config, data_dir, root, mesh=None) -> dict[str, Stage]:
    """The stages of a config on their data."""
    stages = make_stages(config, root)
    return {stage.name: on_data(stage, data_dir, mesh or make_mesh()) for stage in stages}


def check_data(config, data_dir, root, mesh=None):
    checks.with_data(tuple(opened(config, data_dir, root, mesh).values()))


# masks


def test_where_masks_lie(tmp_path):
    places = {"": None, "localise": tmp_path / "localise/masks", "/my/masks": Path("/my/masks")}
    for masks, folder in (places | {"./masks": Path("masks")}).items():
        prior = {"masks": masks, "kind": "hard"}
        assert stage_of({"prior": prior}, tmp_path).masks_from == folder
    prior = {"masks": "localise", "kind": "soft"}
    assert stage_of({"prior": prior}, tmp_path).masks_from == tmp_path / "localise/masks-soft"


def test_what_a_trained_stage_is_evaluated_with():
    config = {"eval": {"sounds": ("right", "silence")}}
    prior = {"evaluate": ("predicted", "true"), "masks": "", "train": "none"}
    test = types.SimpleNamespace(clips=[Clip("v1s", "a", 5, (0,), (1,), False)])
    sources = {"train": test, "val": test, "test": test}
    alone = evaluations(
        stage_of({"prior": prior, "writes_masks": False}, sources=sources, **config)
    )
    assert alone == [
        ("test", "predicted", "right"),
        ("test", "predicted", "silence"),
        ("test", "true", "right"),
        ("test", "true", "silence"),
    ]
    writing = evaluations(
        stage_of({"prior": prior, "writes_masks": True}, sources=sources, **config)
    )
    assert writing == [*alone, ("val", "predicted", "right"), ("train", "predicted", "right")]
    del sources["test"]
    some = evaluations(stage_of({"prior": prior, "writes_masks": True}, sources=sources, **config))
    assert some == writing[-2:]


@pytest.mark.parametrize(
    ("trained_on", "written"),
    [
        ((), True),  # nobody takes them: whoever wants them wants all
        (("predicted",), True),
        (("mixture", "earlier"), True),
        (("earlier",), False),
        (("crossfit", "earlier"), False),
    ],
)
def test_who_writes_masks_of_training_clips(trained_on, written):
    """Not who is trained on them, where those that take masks train on what others make of them."""
    takers = {str(n): {"prior": {"masks": "a", "train": how}} for n, how in enumerate(trained_on)}
    stages = {"a": {"prior": {"masks": "", "train": "none"}}, **takers}
    stage = Stage("a", {"schedule": tuple(stages), "stages": stages}, Path("run"), NETWORK)
    assert stage.own_training_masks_are_wanted == written


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([(1,), (2,)], True),
        ([(1,), (1, 2)], False),
        ([(1,), (1, 2), (3,)], True),
        ([(1,)], False),
        ([()], False),
        ([(), (1,)], True),
    ],
)
def test_no_row_of_other_sounds_where_no_clip_can_lend_one(objects, expected):
    clips = [Clip("v1s", f"c{i}", 5, (0,), each, False) for i, each in enumerate(objects)]
    config = {"eval": {"sounds": ("right", "other")}}
    sources = {"test": types.SimpleNamespace(clips=clips)}
    heard = sounds_to_hear(stage_of({}, sources=sources, **config))
    assert heard == (("right", "other") if expected else ("right",))
    try:
        other_sounds(clips)
    except DataError:
        assert not expected
    else:
        assert expected


# patterns and hand-overs: before data is prepared


def edited(edit, module=avss, argument=""):
    config = module.get_config(argument)
    edit(config)
    return config.to_dict()


def a_stage(tiny_stage, **phase):
    """The config of a stage whose second phase is as given."""
    stage = tiny_stage("localise")
    usual = stage["phases"]["all"]
    stage |= {"order": ("a", "b"), "phases": {"a": usual, "b": usual | phase}}
    return {"train": {"remat": "none"}, "stages": {"localise": stage}}


@pytest.mark.parametrize("key", ["trains", "fresh", "zero"])
def test_patterns_of_every_phase_are_looked_at(key, tiny_stage):
    make_stage(a_stage(tiny_stage, **{key: ("audio_proj/.*",)}), "localise", Path("unused"))
    config = a_stage(tiny_stage, **{key: ("audio_proj/.*", "nothing_like_this")})
    with pytest.raises(UserError, match=f"'nothing_like_this' of 'localise/b {key}' matches none"):
        make_stage(config, "localise", Path("unused"))


@pytest.mark.parametrize(
    ("key", "value"), [("no_decay", ("decoder/.*",)), ("multipliers", (("decoder/.*", 0.1),))]
)
def test_what_the_optimiser_names_must_train(tiny_stage, key, value):
    optimizer = tiny_stage("localise")["phases"]["all"]["optimizer"] | {key: value}
    config = a_stage(tiny_stage, trains=("audio_proj/.*",), optimizer=optimizer)
    with pytest.raises(UserError, match=rf"'decoder/\.\*' of 'localise/b {key}' matches none"):
        make_stage(config, "localise", Path("unused"))


def test_a_phase_that_trains_nothing_is_an_error(tiny_stage):
    config = a_stage(tiny_stage, trains=())
    with pytest.raises(UserError, match="'?localise/b trains'? is empty"):
        make_stage(config, "localise", Path("unused"))


def set_pattern(config):
    config.stages.understand.phases.all.trains = ("nothing_like_this",)


def set_start(config):
    config.stages.localise.phases.all.start = "understand/all"


def set_stage(config):
    config.schedule = ("localise", "undrestand")


def set_phase(config):
    config.stages.understand.order = ("a",)


def set_method(config):
    config.stages.understand.method = "nobodys"


def set_masks(config):
    config.stages.understand.prior.masks = "/no/such/folder"


def set_folder_for_masks_by_others(config):
    config.stages.understand.prior.masks = "/tmp"


def set_no_masks(config):
    config.stages.localise.writes_masks, config.stages.localise.earlier = False, 0.0


def set_model(config):
    config.stages.understand.model.num_heads = 5


def set_empty_audio(config):
    config.stages.understand.model.audio.fully_connected = ()


def set_prior_in_training_only(config):
    config.stages.understand.prior.evaluate = ("none",)


def set_prior_in_evaluation_only(config):
    config.stages.understand.prior.train = "none"


def set_sounds(config):
    config.eval.sounds = ("silence",)


def set_swapped_sounds_that_count_for_nothing(config):
    config.stages.understand.data.drop_empty_clips = True
    config.stages.understand.data.augment.swap_sound = 0.1


def set_semantic_masks(config):
    config.stages.understand.writes_masks = True


def set_folds_that_write_nothing(config):
    config.stages.understand.folds = 2


def set_earlier_that_writes_nothing(config):
    config.stages.understand.earlier = 0.5


def set_crossfit_without_folds(config):
    config.stages.understand.prior.train = "crossfit"


def set_masks_of_no_earlier_checkpoint(config):
    config.stages.localise.earlier = 0.0


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_pattern, r"'nothing_like_this' of 'understand/all trains' matches none"),
        (set_start, r"localise/all starts from 'understand/all', which is neither"),
        (set_stage, r"no config\.stages\.undrestand: there are localise, understand"),
        (set_phase, r"no config\.stages\.understand\.phases\.a: there are all"),
        (set_method, r"method 'nobodys' is none of aavs"),
        (set_masks, r"prior\.masks is '/no/such/folder', which is neither an earlier stage"),
        (
            set_folder_for_masks_by_others,
            r"masks is the folder /tmp, .*: give --config\.stages\.understand\.prior\.train=predic",
        ),
        (
            set_no_masks,
            r"prior\.masks is 'localise', which is neither an earlier stage that writes",
        ),
        (set_model, r"model or loss cannot be"),
        (set_empty_audio, r"model or loss cannot be"),
        (set_prior_in_training_only, r"either with prior masks or, 'none', without"),
        (set_prior_in_evaluation_only, r"either with prior masks or, 'none', without"),
        (set_sounds, r"eval\.sounds lacks 'right'"),
        (
            set_swapped_sounds_that_count_for_nothing,
            r"swap_sound empties labels, and drop_empty_clips takes",
        ),
        (set_semantic_masks, r"writes_masks is set, but only a binary stage"),
        (set_folds_that_write_nothing, r"understand\.folds is 2, but the stage writes no masks"),
        (set_earlier_that_writes_nothing, r"understand\.earlier is 0\.5, but the stage writes no"),
        (set_crossfit_without_folds, r"give --config\.stages\.localise\.folds=2"),
        (set_masks_of_no_earlier_checkpoint, r"give --config\.stages\.localise\.earlier=0\.6"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_schedule_that_cannot_be_is_found_before_anything_is_made(tmp_path, edit, words):
    config = edited(edit)
    with pytest.raises(UserError, match=words):
        check_schedule(config, tmp_path)
    with pytest.raises(UserError, match=words):
        train_and_evaluate(config, tmp_path / "run", "avss")
    assert {path.name for path in tmp_path.rglob("*")} <= {"run", ".lock", "config.json"}


@pytest.mark.parametrize("module", [avss, s4])
def test_the_paper_without_pretrained_weights_is_found_before_data_is_looked_for(tmp_path, module):
    config = module.get_config(str(tmp_path / "no_data_here")).to_dict()
    with pytest.raises(UserError, match=r"localise/a starts from pretrained .*none are given"):
        train_and_evaluate(config, tmp_path / "run", "avss")


@pytest.mark.parametrize("argument", ["", "/x,small"])
def test_schedules_of_the_project_pass(tmp_path, argument):
    for module in (avss, s4):
        check_schedule(module.get_config(argument).to_dict(), tmp_path)


def test_finished_stages_and_begun_phases_are_not_looked_at(tmp_path):
    config = avss.get_config("/x").to_dict()
    with pytest.raises(UserError, match="localise/a starts from pretrained"):
        check_schedule(config, tmp_path)
    for phase in ("localise/a", "localise/b"):
        (tmp_path / phase / "checkpoints").mkdir(parents=True)
    (tmp_path / "localise" / "results.json").write_text("[]")
    with pytest.raises(UserError, match="understand/a starts from pretrained"):
        check_schedule(config, tmp_path)


# with the data at hand, before the first step


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    audible_shapes.make(folder / "raw", clips=40, size=32, progress=False)
    prepare(folder / "raw", folder / "prepared", progress=False)
    return folder / "prepared"


def fit_small_data(config):
    for stage in config.stages.values():
        stage.phases["all"].optimizer.warmup_steps = 1
    config.eval.sounds = ("right", "silence")


def test_data_that_fits_passes_without_a_record_read(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "data_pipelines.prepared.source.ClipSource.__getitem__",
        lambda *_: pytest.fail("a record was read"),
    )
    check_data(edited(fit_small_data), data_dir, tmp_path)


def test_an_unknown_schedule_names_the_phase(data_dir, tmp_path):
    def edit(config):
        fit_small_data(config)
        config.stages.understand.phases.all.optimizer.schedule = "linear"

    with pytest.raises(UserError, match="schedule of understand/all is 'linear'"):
        check_data(edited(edit), data_dir, tmp_path)


@dataclasses.dataclass
class Devices:
    size: int  # as a mesh has


def test_a_batch_that_the_devices_cannot_share(data_dir, tmp_path):
    with pytest.raises(UserError, match=r"localise\.data\.batch_size is 20, which 3 devices"):
        check_data(edited(fit_small_data), data_dir, tmp_path, Devices(3))


def test_labels_that_tell_no_classes(data_dir, tmp_path, monkeypatch):
    """They are enough for where it sounds, and not for what it is."""

    def told(*arguments):
        source = open_source(*arguments)
        source.binary_only = ("v1m", "clips")
        return source

    monkeypatch.setattr("aavs_jax.inputs.batches.open_source", told)
    config = edited(fit_small_data)
    with pytest.raises(UserError, match=r"understand learns classes, but the labels of v1m tell"):
        check_data(config, data_dir, tmp_path)
    check_data(config | {"schedule": ("localise",)}, data_dir, tmp_path)
    config["stages"]["understand"]["data"]["subsets"] = ("v1s", "v2")
    check_data(config, data_dir, tmp_path)


def test_splits_that_are_not_there_are_not_asked_for(data_dir, tmp_path, monkeypatch):
    config = edited(fit_small_data)
    found = opened(config, data_dir, tmp_path)["localise"]
    assert list(found.sources) == ["train", "val", "test"]
    monkeypatch.setattr("aavs_jax.inputs.batches.splits", lambda _: {"train": 9, "test": 3})
    found = opened(config, data_dir, tmp_path)["localise"]
    assert list(found.sources) == ["train", "test"]
    check_data(config, data_dir, tmp_path)
    config["stages"]["localise"]["data"]["subsets"] = ("vpo_ss",)
    with pytest.raises(UserError, match="clips of vpo_ss only, and the split train of .* has v1s"):
        check_data(config, data_dir, tmp_path)


@pytest.fixture
def staged(data_dir, tmp_path, monkeypatch):
    """A function: scores by phase, changes of the sources -> runs a stage whose training only
    leaves checkpoints; returns the phases that had a validation, and what the scores are of."""

    def run(scores, change=lambda sources: sources):
        config = edited(fit_small_data)
        stage = config["stages"]["localise"]
        stage |= {"order": ("a", "b"), "best_over_phases": "all"}
        stage["phases"] = {"a": stage["phases"]["all"], "b": stage["phases"]["all"]}
        validated, scored = [], []

        def train_phase(stage, name, *, validate, **_):
            mine = scores[name.phase] if validate else (math.nan,)
            validated.extend([str(name)] * (validate is not None))
            directory = stage.root / str(name)
            data = iter(grain.MapDataset.range(3).to_iter_dataset())
            (directory / "card.json").unlink()  # the network is of one number
            with PhaseCheckpoints(directory) as checkpoints:
                for step, score in enumerate(mine, 1):
                    value = jnp.asarray(step + 10.0 * (name.phase == "b"))
                    state = TrainState(jnp.asarray(step), {"x": value}, {}, {}, ())
                    checkpoints.save(state, data, {SCORE: score})

        def stage_scores(stage, parameters):
            scored.append(float(parameters["x"]))
            return []

        monkeypatch.setattr(schedule, "train_phase", train_phase)
        monkeypatch.setattr(schedule, "stage_scores", stage_scores)
        found = opened(config, data_dir, tmp_path / "run")["localise"]
        change(found.sources)
        with Workdir(tmp_path / "run", config, "avss") as workdir:
            schedule.run_stage(found, data_dir, workdir)
        return validated, scored

    return run


def test_a_stage_hands_over_the_best_of_its_phases_and_says_which(staged, capsys):
    validated, scored = staged({"a": (0.2, 0.6, 0.1), "b": (0.6, 0.5)})
    assert validated == ["localise/a", "localise/b"]
    assert scored == [2]
    said = capsys.readouterr().out
    words = "hands over the best of phases a and b: step 2 of phase a, J 0.600; scores follow"
    assert f"[localise] {words}\n" in said


def test_a_validation_split_without_labels_is_as_good_as_none(staged, capsys):
    def without_labels(sources):
        val = sources["val"]
        val.clips = [dataclasses.replace(clip, labelled=()) for clip in val.clips]
        return sources

    validated, scored = staged({}, without_labels)
    assert (validated, scored) == ([], [11])  # the last of phase b
    said = capsys.readouterr().out
    words = "no clip of the split val has a label: each phase hands over its last checkpoint"
    assert f"[localise] {words}" in said
    assert "the last checkpoint, as none has a score: step 1 of phase b; scores follow" in said


def test_clips_longer_than_a_batchs_seconds(data_dir, tmp_path):
    def edit(config):
        fit_small_data(config)
        config.stages.understand.data.sampling = "clip"

    with pytest.raises(DataError, match="seconds is 1, but clips sampled by clip need"):
        check_data(edited(edit), data_dir, tmp_path)


@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize("wanted", [1, 10, 40])
def test_evaluation_batches_can_be_shared_by_devices(data_dir, tmp_path, devices, wanted):
    """Clips of 5 and of 10 seconds: whole clips for every device, about the frames wanted."""
    config = edited(fit_small_data)
    config["eval"]["frames_per_batch"] = wanted
    stage = opened(config, data_dir, tmp_path, Devices(devices))["localise"]
    for batch in eval_batches(stage, "train", prior="none"):
        clips, seconds = batch["valid"].shape
        assert seconds in (5, 10) and clips % devices == 0
        assert wanted <= clips * seconds < wanted + 2 * 10 * devices


def test_an_unknown_sound_or_prior(data_dir, tmp_path):
    def edit(config):
        fit_small_data(config)
        config.eval.sounds = ("right", "noise")

    with pytest.raises(DataError, match="sound 'noise' is none of"):
        check_data(edited(edit), data_dir, tmp_path)


def with_masks_in(folder):
    """A config whose second stage takes its prior masks from there."""

    def edit(config):
        fit_small_data(config)
        config.schedule = ("understand",)
        config.stages.understand.prior.masks = str(folder)
        config.stages.understand.prior.train = "predicted"

    return edited(edit)


def write_masks(folder, clips, last=None):
    """Empty files for every second but those from `last` on."""
    for clip in clips:
        (folder / clip.name).mkdir(parents=True, exist_ok=True)
        for second in range(clip.seconds)[:last]:
            (folder / clip.name / f"{second}.png").write_bytes(b"")


@pytest.mark.parametrize("lacking", [0, 1, -1])
def test_a_folder_of_prior_masks_is_looked_into_before_anything_trains(data_dir, tmp_path, lacking):
    """None are there, the first clip's are, all but the last clip's are."""
    masks = tmp_path / "masks"
    masks.mkdir()
    config = with_masks_in(masks)
    sources = opened(config, data_dir, tmp_path)["understand"].sources
    for source in sources.values():
        write_masks(masks, source.clips[:lacking])
    with pytest.raises(UserError, match=r"understand.prior.masks is .* lacks \d+ of \d+") as error:
        check_data(config, data_dir, tmp_path)
    train = sources["train"].clips
    assert f"such as {masks / train[lacking].name}/0.png" in str(error.value)
    count = 1 if lacking < 0 else len(train) - lacking
    assert f"masks of split train, in {count} of {len(train)} clips" in str(error.value)
    assert "stage localise" not in str(error.value)


def test_prior_masks_of_every_second_are_looked_for(data_dir, tmp_path):
    """In training of those that are shown: a clip of which one second is labelled shows that."""
    masks = tmp_path / "masks"
    config = with_masks_in(masks)
    stage = opened(config, data_dir, tmp_path)["understand"]
    sources = stage.sources
    for source in sources.values():
        write_masks(masks, source.clips)
    check_data(config, data_dir, tmp_path)
    last = sources["test"].clips[-1]
    (masks / last.name / f"{last.seconds - 1}.png").unlink()
    total = sum(clip.seconds for clip in sources["test"].clips)
    expected = f"lacks 1 of {total} masks of split test, .*{last.uid}/{last.seconds - 1}.png"
    with pytest.raises(UserError, match=expected):
        check_data(config, data_dir, tmp_path)
    for sampling in ("frame", "clip"):
        config["stages"]["understand"]["data"]["sampling"] = sampling
        for clip in sources["train"].clips:
            shown = clip.labelled if sampling == "frame" or clip.labelled == (0,) else None
            for second in range(clip.seconds):
                path = masks / clip.name / f"{second}.png"
                if shown is not None and second not in shown:
                    path.unlink(missing_ok=True)
                else:
                    path.write_bytes(b"")
        check_masks_are_there(stage, ["train"])
        as_val = dataclasses.replace(stage, sources={"val": sources["train"]})
        with pytest.raises(UserError, match="lacks .* masks of split val"):
            check_masks_are_there(as_val, ["val"])


def test_masks_that_a_complete_stage_has_lost_are_missed_at_once(data_dir, tmp_path):
    config = edited(fit_small_data)
    stage = opened(config, data_dir, tmp_path)["understand"]
    check_masks_are_there(stage, ["test"])  # they will be written
    (tmp_path / "localise").mkdir()
    (tmp_path / "localise" / "results.json").write_text("[]")
    with pytest.raises(UserError, match="localise is complete, but .*/masks-soft, .* lacks"):
        check_masks_are_there(stage, ["test"])
    write_masks(tmp_path / "localise" / "masks-soft", stage.sources["test"].clips)
    check_masks_are_there(stage, ["test"])


def test_each_split_is_missed_once_those_that_write_it_are_complete(data_dir, tmp_path):
    stage = opened(edited(fit_small_data), data_dir, tmp_path)["understand"]
    (tmp_path / "localise").mkdir()
    (tmp_path / "localise" / "results.json").write_text("[]")
    check_masks_are_there(stage, ["train"])  # they will be written
    with pytest.raises(UserError, match="stage localise is complete, but .* split test"):
        check_masks_are_there(stage, ["train", "test"])
    (tmp_path / "localise_earlier").mkdir()
    (tmp_path / "localise_earlier" / "results.json").write_text("[]")
    with pytest.raises(UserError, match="stage localise_earlier is complete, but .* split train"):
        check_masks_are_there(stage, ["train"])


def test_a_stage_knows_whether_its_labels_have_ignored_pixels(data_dir, tmp_path, monkeypatch):
    made = []

    def told(*arguments):
        source = open_source(*arguments)
        source.ignores = ignores
        return source

    def make(keys, classes, *, ignores=False):
        made.append(ignores)

    config = edited(fit_small_data)
    stage = make_stage(config, "localise", tmp_path)
    monkeypatch.setattr("aavs_jax.inputs.batches.make_method", make)
    monkeypatch.setattr("aavs_jax.inputs.batches.open_source", told)
    for ignores in (False, True):  # noqa: B007, which `told` reads
        on_data(stage, data_dir, make_mesh())
    assert made == [False, True]


def test_a_method_ignores_what_it_is_told_to(monkeypatch):
    seen = []
    make = LossConfig.from_dict
    monkeypatch.setattr(
        LossConfig, "from_dict", lambda values: seen.append(make(values)) or seen[0]
    )
    stage = edited(fit_small_data)["stages"]["localise"]
    make_method(stage, 9)
    make_method(stage, 9, ignores=True)
    assert [config.ignores for config in seen] == [False, True]


def test_data_prepared_in_another_form_are_refused(tmp_path):
    (tmp_path / "data" / "avs_clips" / "1.0.0").mkdir(parents=True)
    with pytest.raises(DataError, match="has the form 1.0.0 .* prepare the data folder again"):
        dataset.prepared({"folder": str(tmp_path / "data")}, tmp_path / "run")


def test_pictures_show_what_is_ignored_as_background():
    showcase = Showcase(["v1s/a"])
    labels = np.array([[[[0, 1, 255]]]], np.uint8)
    showcase({"ids": ["v1s/a"], "labels": labels}, Prediction(np.zeros_like(labels)))
    assert showcase.labels["v1s/a"].tolist() == [[[0, 1, 0]]]


def test_label_maps_of_more_classes_than_there_is_room_for(data_dir, tmp_path):
    """Found before anything trains, with the key, and the room that is needed."""

    def edit(config):
        fit_small_data(config)
        config.stages.understand.data.max_targets = 2

    config = edited(edit)
    clips = opened(config, data_dir, tmp_path)["understand"].sources["train"].clips
    most = max(clip.classes for clip in clips)
    assert most > 2
    with pytest.raises(DataError) as error:
        check_data(config, data_dir, tmp_path)
    name = next(clip.name for clip in clips if clip.classes == most)
    assert f"clip {name} shows up to {most} classes in one label map" in str(error.value)
    assert f"--config.stages.understand.data.max_targets={most}" in str(error.value)


def test_a_mesh_that_the_devices_do_not_make(tmp_path):
    def edit(config):
        config.mesh.fsdp = 3

    with pytest.raises(UserError, match=r"mesh\.fsdp is 3, but there are \d+ devices"):
        train_and_evaluate(edited(edit), tmp_path / "run", "avss")
