"""The command: python -m aavs_jax.main --config=configs/avss.py [--workdir=DIR] [--config.KEY=V].

Kept short: what it calls can be called from a notebook or a test as well.
"""

import os
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to run, as in configs/avss.py or configs/avss.py:/data/avsbench."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run (default runs/<config name>); taken up again if begun."
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One process of many hosts.")


def parse(arguments: list[str]) -> list[str]:
    """absl's flags; mistakes in them are one sentence and exit code 2."""
    # Values of the config that are wrong raise what its file raises.
    try:
        rest = flags.FLAGS(arguments)
        if _CONFIG.value is None:
            raise flags.Error("--config=FILE is missing, as in --config=configs/avss.py")
        if rest[1:]:
            raise flags.Error(f"what is {rest[1]!r}? Options start with --")
        # A file that could not be read raises only now.
        if not _CONFIG.value.schedule:
            raise flags.Error("config.schedule is empty: name the stages to run")
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError) as error:
        print(f"error: {_in_a_sentence(error)}", file=sys.stderr)
        sys.exit(2)
    return rest


def _in_a_sentence(error: Exception) -> str:
    """What absl and ml_collections say in many lines, some of them a traceback."""
    if error.args and isinstance(error.args[0], KeyError):
        error = error.args[0]  # ml_collections wraps it in an AttributeError
    if isinstance(error, KeyError):
        return f"the config has no key {str(error.args[0]).replace(chr(10), ': ')}"
    text = str(error).strip()
    last = text.splitlines()[-1].strip()
    if isinstance(error, OSError):
        return f"cannot read the config file: {last}"
    if "Traceback" in text:
        return last.partition(": ")[2]
    return " ".join(text.split())


def config_name() -> str:
    """'avss' for --config=configs/avss.py:/data/avsbench."""
    return Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]).stem


def main(_: list[str]) -> None:
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
    workdir = Path(_WORKDIR.value or Path("runs") / config_name()).absolute()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(workdir.parent / "compilation_cache"))
    try:
        from aavs_jax.stepping_stones import train_and_evaluate

        train_and_evaluate(_CONFIG.value.to_dict(), workdir, config_name())
    except (UserError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
