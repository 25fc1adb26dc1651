"""AVSS whose two networks train together at the end: through stage one's soft mask.

    python -m aavs_jax.main --config=configs/avss_joint.py
    python -m aavs_jax.main --config=configs/avss_joint.py:,shared

After `localise` and `understand`, the stage `together` trains both in one step: the semantic loss
and half of the binary one, with a gradient from what is told to the network that tells it. With
`shared` there is one stage, of one backbone and pixel decoder with two decoders, from the
beginning: the second is not told what the first draws, but what its queries hold. Neither is in the
paper; docs/experiments.md says what they are worth. They train the small network only.
"""

import dataclasses

from aavs_jax.methods.aavs.config import SMALL
from aavs_jax.methods.aavs_joint.config import JointConfig, JointLoss
from configs import avss, base
from configs.argument import parse_recipe


def get_config(argument: str = ""):
    """See configs/argument.py; [,shared] after the folder."""
    folder, recipe, _ = parse_recipe(argument, ("separate", "shared"))
    if recipe == "shared":
        config = base.base(folder, True)
        config.schedule = ("together",)
        config.stages.together = _stage(shared=True)
        base.add_phases(config.stages.together, all=base.small_phase("nothing", 64))
        return config
    config = avss.get_config(f"{folder},small")
    config.schedule = (*config.schedule, "together")
    # Hard masks until then: soft ones of clips that stage one was trained on are too good, and a
    # network that trusts them loses on new clips (0.836, against 0.860 by hard ones; one seed).
    config.stages.localise.earlier = 0.0
    config.stages.understand.prior.train = "predicted"
    config.stages.understand.prior.kind = "hard"
    config.stages.understand.model.prior_keys = "linear"
    config.stages.localise.phases.all.epochs = 32.0
    config.stages.understand.phases.all.epochs = 24.0
    both = base.small_phase("localise/all -> localise, understand/all -> understand", 8)
    both.optimizer.learning_rate = 1e-4  # a tenth
    both.validate_every_epochs = 2.0
    config.stages.together = _stage(shared=False)
    base.add_phases(config.stages.together, all=both)
    return config


def _stage(shared: bool):
    stage = base.stage("aavs_joint", "semantic", True)
    sizes = JointConfig(
        **{field.name: getattr(SMALL, field.name) for field in dataclasses.fields(SMALL)}
        | {"prior_keys": "linear", "localise_queries": SMALL.num_queries}
        # A mask from the beginning is one of clips that both decoders learn by heart: too good.
        | {"shared": shared, "tells": not shared}
    )
    stage.model = base.keys(sizes)
    stage.loss = base.keys(JointLoss(grid=32))
    return stage
