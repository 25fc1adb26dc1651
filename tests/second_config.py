"""The method of tests/second_method.py: two stages, of which the second starts from the first."""

from configs import base
from configs.argument import parse_argument


def get_config(argument: str = ""):
    folder, _ = parse_argument(argument)
    config = base.base(folder, small=True)
    config.schedule = ("localise", "understand")
    for name, task in (("localise", "binary"), ("understand", "semantic")):
        stage = base.stage("tests.second_method", task, small=True)
        stage.model.width = 16
        stage.loss.sharpness = 2.0
        stage.data.sampling, stage.data.seconds = "clip", 10  # it attends over the seconds
        stage.data.batch_size = 4
        stage.data.image_size = stage.data.label_size = 32
        start = "nothing" if name == "localise" else "localise/all"
        base.add_phases(stage, all=base.phase((".*",), start, 4.0, 1e-2))
        if name == "understand":
            stage.phases["all"].fresh = ("classify/.*",)  # for other classes
            stage.phases["all"].optimizer.name = "sgd"
        config.stages[name] = stage
    return config
