"""Every key of a run but a method's own, once, with its unit. The other files say what differs.

configs/argument.py says what may follow a config's name.

Override any key with --config.KEY=VALUE, as in --config.stages.localise.phases.all.epochs=10.
"""

import dataclasses

from ml_collections import ConfigDict

from aavs_jax.methods.parts.sizes import NOT_KEYS
from configs import augment


def base(folder: str, small: bool) -> ConfigDict:
    """What all runs share."""
    config = ConfigDict()
    config.seed = 3407  # of first values, order, draws and drop-path
    # Where the public code does something odd, or repeats what need not be, do the same. True: a
    # clip of one frame (S4's in training) has it once for each second, and each draws drop-path
    # anew; False: once for all its seconds, which share one draw. That they share it is a choice.
    config.as_published = False
    config.log_every = 10  # steps between lines in metrics.jsonl
    config.checkpoint_every = 100  # steps; a killed run resumes from the last one

    config.data = ConfigDict()
    config.data.folder = folder  # as it came, or prepared; '': built-in
    config.data.num_workers = 0  # processes that decode; 0: threads of the main process
    config.data.cache = not folder  # keep decoded clips in memory
    # Where the audio encoder is pretrained and never trains, its output is computed once and kept
    # beside the prepared data.
    config.data.embeddings = True
    # Audible Shapes, made where no folder is given.
    config.data.clips = 640
    config.data.size = 96  # pixels
    config.data.seed = 0

    # How a step is computed. Nothing depends on it but the order of sums.
    config.train = ConfigDict()
    # Frames whose loss and gradient are computed at a time, on each device; the next follow when
    # they are done, and memory is that of so many. 0: all of a batch; -1: 1 on a CPU, else 5.
    config.train.frames_per_pass = 0 if small else -1
    # What is not kept for the backward pass but computed again: 'none'; 'blocks': the inside of the
    # backbone's blocks; 'everything': that of the other layers, too.
    config.train.remat = "none"

    config.mesh = ConfigDict()
    config.mesh.fsdp = 1  # devices over which parameters are cut; the others copy them
    # Of float32 matrix products: 'highest' is float32 everywhere, as in the reference; 'default'
    # lets GPUs (TF32) and TPUs (bfloat16) round the factors, which is several times faster.
    config.matmul_precision = "highest"

    # Pretrained parameters: folders written by `python -m aavs_jax.convert`, or a trained phase
    # <run>/<stage>/<phase>; '' where there are none.
    config.init = ConfigDict()
    # Its keys but this one are the method's.
    # What a phase initialises at random it has to train, but for these patterns of parameters.
    config.init.allow = ()

    config.eval = ConfigDict()
    # About; rounded up to whole clips and to what devices need.
    config.eval.frames_per_batch = 40 if small else 10
    config.eval.sounds = ("right", "other", "silence")  # a row of scores each
    config.eval.examples = 6  # clips in the report
    # By whose definitions scores are computed, names separated by commas, or 'all': those of
    # docs/protocols.md. Checkpoints are chosen by stepping_stones whatever stands here.
    config.eval.protocols = "stepping_stones"
    # Whether predictions of the test split (right sound, every prior) are kept as pictures; also
    # the flag --save-masks.
    config.eval.save_masks = False

    # Of every stage at once; '' or 0: as the stages' own keys say.
    config.backbone = ""  # swin_t, swin_s, swin_b or swin_l
    config.dtype = ""  # of matrix products: float32 or bfloat16
    config.batch_size = 0  # clips
    config.epochs = 0.0  # of a stage's phases together, which keep their proportion

    # Stages run in this order; each is a network, trained through its phases.
    config.schedule = ()
    config.stages = ConfigDict()
    return config


def stage(method: str, task: str, small: bool) -> ConfigDict:
    """A stage without its phases, and without what is the method's: `model` and `loss`.

    Args:
      method: its name, see aavs_jax/methods/__init__.py; or a module of one's own.
      task: 'binary' (where does it sound) or 'semantic' (what is it).
      small: sizes of the data that 2 cores train in minutes.
    """
    stage = ConfigDict()
    stage.method = method
    stage.task = task
    stage.model = ConfigDict()
    stage.loss = ConfigDict()

    stage.data = ConfigDict()
    # AVSBench: v1s, v1m, v2; VPO: vpo_ss, vpo_ms, vpo_msmi; a folder of one's own: clips. (): all.
    stage.data.subsets = ()
    stage.data.image_size = 64 if small else 384  # pixels, what the network sees
    stage.data.label_size = 96 if small else 224  # pixels, what is scored and handed over
    # Classes in one label map, at most.
    stage.data.max_targets = 9 if small else 2 if task == "binary" else 16
    stage.data.batch_size = 20 if small else 1  # clips, over all devices
    # 'clip': all seconds of a clip, where only the first is labelled its frame again and again;
    # 'frame': one random labelled second of it; 'film': all seconds as they are.
    stage.data.sampling = "frame" if small else "clip"
    stage.data.seconds = 1 if small else 10  # of every training batch; shorter clips are padded
    # Batches of clips of one length, which are then of that length and have no padding; `seconds`
    # is only the most there may be. In batches of one clip, the paper's, nothing else changes: the
    # order stays, and padding has no part in the loss, but costs as much as what is real. With
    # random seconds there is one length only.
    stage.data.bucket_by_length = True
    # Of training frames: 'squash' brings both sides to image_size, as evaluation always does;
    # 'centre_crop' the shorter one, and shows the middle.
    stage.data.resize = "squash"
    stage.data.shuffle = True
    # Where nothing of the backbone trains, whether its maps of all training frames are computed
    # once and kept: 'none'; 'memory' of the host, anew at each start; or 'disk', beside prepared
    # data. Not with drop-path, which the paper's recipe has, nor with changes of pictures.
    stage.data.features = "none"
    stage.data.features_gib = (
        8.0  # GiB they may take; those of Swin-B take 8.4 MiB a frame of 384 pixels
    )
    stage.data.augment = augment.augment(small)
    # MS3: a clip whose labels are empty in every frame contributes no loss, and a batch of nothing
    # else is no step of the optimiser: parameters, moments and learning rate stay as they are.
    stage.data.drop_empty_clips = False

    # Where it sounds, told to the network.
    stage.prior = ConfigDict()
    # In training: 'none', 'true' masks, 'predicted' ones, a 'mixture' of both; 'crossfit', those of
    # networks that have not seen the clip (`folds` of the stage that predicts); or 'earlier', those
    # of its network when it knew the clips less well (`earlier` of that stage).
    stage.prior.train = "none"
    stage.prior.mixture = 0.5  # share of predicted masks in the mixture
    stage.prior.dropout = 0.0  # share of seconds in training that are told nothing, 0.5 everywhere
    # Rows of scores; the first one selects checkpoints, and is what predictions are made with.
    # Besides the above 'unknown', 0.5 everywhere, and 'both': the class scores with predicted masks
    # and those with 'unknown', averaged.
    stage.prior.evaluate = ("none",)
    # Who predicts: a stage of this run, or a folder <subset>/<uid>/<second>.png.
    stage.prior.masks = ""
    # What a stage hands over: 'hard' masks, or 'soft' ones, s1 / (s0 + s1) of its two scores. A
    # folder's are taken as they are.
    stage.prior.kind = "hard"

    # Of all clips, when trained. Those of training clips are left out if every stage that takes
    # its masks trains on others' ('crossfit', 'earlier').
    stage.writes_masks = False
    # So many more networks, each trained without one part of the training clips, whose masks it
    # writes: masks of clips that were not seen. A stage <name>_fold<k> each; 0: none.
    stage.folds = 0
    # Share of its last phase's steps after which the network, as it is then, is kept to write masks
    # of the training clips, too: nobody has to train for them, as for those of `folds`. 0: none.
    stage.earlier = 0.0
    # Whose best checkpoint by validation the stage keeps: that of the 'last' phase, or of 'all'
    # together, as in the paper's code. It writes the masks and gets the scores; a phase that starts
    # from another takes that one's best all the same.
    stage.best_over_phases = "last"
    stage.order = ()  # of the phases
    stage.phases = ConfigDict()
    return stage


def phase(trains: tuple[str, ...], start: str, epochs: float, learning_rate: float) -> ConfigDict:
    """A phase: which parameters train, where they come from, how long and how.

    Args:
      trains: regular expressions of whole parameter paths.
      start: 'nothing', 'pretrained' (config.init), '<stage>/<phase>', whose best it takes, or
        several of these as parts of a network: '<stage>/<phase> -> <part>, <stage>/<phase> -> ...'.
      epochs: passes over the training clips.
      learning_rate: at its peak.
    """
    phase = ConfigDict()
    phase.trains = trains
    phase.start = start
    phase.fresh = ()  # patterns of parameters that are initialised at random all the same
    phase.zero = ()  # patterns of parameters that are set to zero
    phase.epochs = float(epochs)
    phase.validate_every_epochs = 1.0
    phase.optimizer = ConfigDict()
    # Or 'adam' or 'sgd', which add the weight decay to the gradient: all three as in PyTorch.
    phase.optimizer.name = "adamw"
    phase.optimizer.betas = (0.9, 0.999)  # of adamw and adam: shares of the moments that are kept
    phase.optimizer.eps = 1e-8  # of adamw and adam
    phase.optimizer.momentum = 0.0  # of sgd; such as 0.9
    phase.optimizer.learning_rate = learning_rate
    # 'cosine' and 'poly', (1 - share of the phase)^power, fall to zero at the phase's end.
    phase.optimizer.schedule = "constant"
    phase.optimizer.power = 0.9  # of poly
    phase.optimizer.warmup_steps = 0  # at most half of the phase
    # Steps by which the schedule is late: 1 where code sets the rate behind each step.
    phase.optimizer.schedule_lag = 0
    # Parameters with an optimiser of their own: (pattern, keys) pairs, as in
    # (("audio_encoder/.*", {"name": "adam", "schedule": "constant"}),); other keys are as here.
    phase.optimizer.groups = ()
    # Of learning rates: (pattern, factor) pairs. A parameter takes the factor of the first pattern
    # that matches it, and 1 where none does. Layer decay is a list of such pairs, a part each.
    phase.optimizer.multipliers = ()
    phase.optimizer.weight_decay = 0.05
    phase.optimizer.no_decay = ()  # patterns
    phase.optimizer.clip_norm = 0.0  # of the whole gradient; 0: none
    return phase


def small_phase(start: str, epochs: float) -> ConfigDict:
    """Of a small network: everything trains, from scratch; arguments as in `phase`."""
    small = phase((".*",), start, epochs, 1e-3)
    small.validate_every_epochs = 8.0
    small.optimizer.schedule = "cosine"
    small.optimizer.warmup_steps = 50
    small.optimizer.no_decay = (r".*/(bias|scale)",)
    small.optimizer.clip_norm = 1.0
    return small


def keys(sizes) -> ConfigDict:
    """A method's dataclass as keys, without those that follow from others."""
    return ConfigDict({k: v for k, v in dataclasses.asdict(sizes).items() if k not in NOT_KEYS})


def add_phases(stage: ConfigDict, **phases: ConfigDict) -> None:
    """Puts phases into a stage, in the order given."""
    stage.order = tuple(phases)
    for name, description in phases.items():
        stage.phases[name] = description
