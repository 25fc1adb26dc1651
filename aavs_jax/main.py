"""The command: python -m aavs_jax.main --config=configs/avss.py [--workdir=DIR] [--config.KEY=V].

It trains and evaluates; with --evaluate=DIR it only evaluates the weights in DIR, and with
--evaluate-masks=DIR the masks there. Kept short: what it calls can be called from a notebook or a
test as well.
"""

import os
import re
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to run, as in configs/avss.py or configs/avss.py:/data/avsbench."
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run (default runs/<config>, with a data folder runs/<config>-<folder's name>, "
    "of an evaluation followed by the name of what is evaluated); taken up again if begun.",
)
_EVALUATE = flags.DEFINE_string(
    "evaluate",
    None,
    "Do not train: scores of these weights. A folder that aavs_jax.convert wrote, "
    "<run>/<stage>/<phase>, or a whole run; several separated by commas.",
)
_MASKS = flags.DEFINE_string(
    "evaluate-masks", None, "Do not train: scores of the masks in this folder, by any tool."
)
_MASKS_KIND = flags.DEFINE_enum(
    "masks-kind",
    None,
    ["binary", "soft", "ids", "colours"],
    "What the pictures in --evaluate-masks hold, where they do not say it themselves. binary: "
    "black, and one other value where it sounds; soft: levels of grey, white for 1; ids: values, "
    "or places in a palette, are class ids; colours: AVSBench's class colours.",
)
_SAVE_MASKS = flags.DEFINE_bool(
    "save-masks", False, "Keep the predictions of the test split as pictures."
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One process of many hosts.")


def parse(arguments: list[str]) -> list[str]:
    """absl's flags; mistakes in them are one sentence and exit code 2."""
    # Values of the config that are wrong raise what its file raises.
    try:
        # Both spellings, as --evaluate_masks is what absl's own flags look like.
        pattern = r"^--?(?:no)?(evaluate_masks|save_masks|masks_kind)(?=$|=)"
        rest = flags.FLAGS([re.sub(pattern, _with_dashes, text) for text in arguments])
        if _CONFIG.value is None:
            raise flags.Error("--config=FILE is missing, as in --config=configs/avss.py")
        if rest[1:]:
            raise flags.Error(f"what is {rest[1]!r}? Options start with --")
        # A file that could not be read raises only now.
        if not _CONFIG.value.get("schedule"):
            raise flags.Error("config.schedule is empty: name the stages to run")
        for flag in (_WORKDIR, _EVALUATE, _MASKS):
            if flag.value is not None and not flag.value.strip(" ,"):
                raise flags.Error(f"--{flag.name} names no folder: give --{flag.name}=DIR")
        if _EVALUATE.value is not None and _MASKS.value is not None:
            raise flags.Error("--evaluate and --evaluate-masks exclude each other: give one")
        if _SAVE_MASKS.value and _MASKS.value is not None:
            raise flags.Error("--save-masks has nothing to save where masks are given")
        if _MASKS_KIND.value is not None and _MASKS.value is None:
            raise flags.Error("--masks-kind is of given masks: name them with --evaluate-masks=DIR")
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError) as error:
        from aavs_jax.errors import in_a_sentence

        print(f"error: {in_a_sentence(error)}", file=sys.stderr)
        sys.exit(2)
    return rest


def _with_dashes(flag: re.Match) -> str:
    return flag[0].replace("_", "-")


def config_name() -> str:
    """'avss' for --config=configs/avss.py:/data/avsbench."""
    return Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]).stem


def default_workdir() -> Path:
    """runs/avss; with a data folder runs/avss-<its name>, as in runs/avss-prepared-small for
    configs/avss.py:/data/prepared,small; of an evaluation the names of what is evaluated, too.
    """
    names = [config_name()]
    data = _CONFIG.value.get("data") or {}
    if folder := str(data.get("folder") or ""):
        names.append(_name(Path(os.path.abspath(folder)).parts[-1:]))
    argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[2]
    names.append(argument.rpartition(",")[2].strip() if "," in argument else "")
    given = (_EVALUATE.value or _MASKS.value or "").split(",")
    # '..' and '.' have no names of their own.
    for folder in (Path(os.path.abspath(text.strip())) for text in given if text.strip()):
        # Of <run>/<stage>/<phase> all three: phases are called a or b.
        names.append(_name(folder.parts[-3 if (folder / "checkpoints").is_dir() else -1 :]))
    return Path("runs") / "-".join(filter(None, names))


def _name(parts: tuple[str, ...]) -> str:
    return "-".join(part.strip("./") for part in parts if part.strip("./")) or "root"


def main(_: list[str]) -> None:
    try:
        _run()
    except KeyboardInterrupt as stop:
        sentence = str(stop) or "the same command resumes from what is saved so far"
        print(f"\nstopped: {sentence}", file=sys.stderr, flush=True)
        sys.exit(130)  # as shells have it


def _run() -> None:
    # Heavy imports wait until the flags are known to be right.
    import jax

    from aavs_jax.errors import UserError
    from data_pipelines.errors import DataError

    logging.set_verbosity(logging.WARNING)
    # Orbax logs the traceback of what it then raises; a full disk is to be one sentence.
    logging.get_absl_logger().addFilter(
        lambda record: "orbax" not in record.pathname or record.levelname != "ERROR"
    )
    if _DISTRIBUTED.value:
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            print(
                f"error: --distributed finds no cluster ({str(error).splitlines()[0]}): start one "
                "process on each host of a TPU slice or by SLURM, or leave it out on one machine",
                file=sys.stderr,
            )
            sys.exit(2)
    workdir = Path(_WORKDIR.value or default_workdir()).absolute()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(workdir.parent / "compilation_cache"))
    config = _CONFIG.value.to_dict()
    try:
        if _SAVE_MASKS.value and isinstance(config.get("eval"), dict):
            config["eval"]["save_masks"] = True
        if _EVALUATE.value is not None:
            from aavs_jax.evaluate import evaluate_weights

            evaluate_weights(config, workdir, config_name(), _EVALUATE.value)
        elif _MASKS.value is not None:
            from aavs_jax.evaluate import evaluate_masks

            folder, kind = Path(_MASKS.value), _MASKS_KIND.value
            evaluate_masks(config, workdir, config_name(), folder, kind)
        else:
            from aavs_jax.schedule import train_and_evaluate

            train_and_evaluate(config, workdir, config_name())
    except (UserError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
