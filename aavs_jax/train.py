"""One phase: fresh optimiser state, one compiled step, a loop, checkpoints."""

import collections
import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aavs_jax.errors import UserError
from aavs_jax.methods.gradients import compiler_options, suitable, value_and_gradient
from aavs_jax.plan.stage import PhaseName, Stage, trained_paths
from aavs_jax.run.logging_writer import LoggingWriter
from aavs_jax.run.progress import compiling, progress_bar, say
from aavs_jax.run.stopping import SoftStop, Stopped
from aavs_jax.state import tree
from aavs_jax.state.checkpoint import SCORE, PhaseCheckpoints
from aavs_jax.state.optimizer import make_optimizer, make_schedule, steps_made
from aavs_jax.state.sharding import put_batch, put_state, state_shardings
from aavs_jax.state.train_state import TrainState


def train_phase(
    stage: Stage,
    name: PhaseName,
    *,
    start: Callable[[], dict[str, np.ndarray]],
    batches: Callable[[Mapping[str, np.ndarray]], Iterator[dict[str, Any]]],
    validate: Callable[[Mapping[str, jax.Array]], dict[str, float]] | None,
    writer: LoggingWriter,
) -> None:
    """Trains a phase to its end, from where it stopped if it was begun before.

    Afterwards `PhaseCheckpoints(directory).best_parameters()` has what to hand over. A process that
    was killed in between and resumes on the same CPU ends with the same parameters, to the last
    bit. Another type of CPU, and a GPU from one start to the next, may sum in another order: last
    bits then differ, and in a long training scores do, as they do between seeds.

    Args:
      stage: on its data.
      name: of the phase.
      start: the parameters a phase begun for the first time starts from, by path.
      batches: parameters by path, of which those that the phase never trains have the values it
        starts with -> Grain iterator of this process's share of the training batches, which may be
        of several shapes; the step is compiled once for each.
      validate: parameters -> scores, SCORE among them; None: the last checkpoint is handed over.
      writer: of scalars.

    Raises:
      UserError: a pattern that matches nothing; a loss or gradient that is not finite; there are
        checkpoints, and none can be read.
    """
    phase, method, mesh = stage.phase(name), stage.method, stage.mesh
    directory, log_every = stage.root / str(name), stage.config["log_every"]
    total, kept = stage.steps(name), stage.earlier_step(name)
    validate_every = max(1, round(phase["validate_every_epochs"] * stage.steps_per_epoch))
    trainable, frozen = trained_paths(method, phase, name)
    optimizer = make_optimizer(phase["optimizer"], total, list(trainable), str(name))
    schedule = make_schedule(phase["optimizer"], total, str(name))

    with PhaseCheckpoints(directory, keep=kept) as checkpoints:
        if checkpoints.latest_step >= total:
            say(f"[{name}] is complete: {total} steps")
            return
        kinds = ", ".join(sorted({device.device_kind for device in mesh.devices.flat}))
        say(f"[{name}] {total} steps on {mesh.size} x {kinds}\n{tree.table(trainable, frozen)}")
        begun = checkpoints.latest_step >= 0
        if begun:
            # What it started from may be gone by now; all it needs is in its own folder.
            shapes = {path: method.shapes[path] for path in (*trainable, *method.mutable)}
            empty = {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in shapes.items()}
            parameters = empty | checkpoints.load_frozen()
        else:
            parameters = start()
        batches = batches(parameters)
        state = TrainState.create(
            {path: parameters[path] for path in trainable},
            {path: parameters[path] for path in frozen},
            optimizer,
            {path: parameters[path] for path in sorted(method.mutable)},
            dict(method.memory),
        )
        state = put_state(state, mesh)
        del parameters  # of the host: all of the network once more
        if begun:
            state = checkpoints.restore_latest(state, batches)
            say(f"[{name}] resumes from step {int(state.step)}")
        else:
            checkpoints.save_frozen(state.frozen)
        # A phase that starts drops what a killed start may have written, step 0 included.
        writer.rewind(*name, int(state.step) if begun else -1)

        moving, frozen = state.apart()
        shardings = state_shardings(moving, mesh)
        train_step = make_train_step(stage, name, optimizer, schedule, shardings)
        # Compiled ahead, once for each shape of batches, so that it is known how long that takes.
        compiled: dict[tuple, Callable] = {}
        pending: collections.deque = collections.deque()

        def settle() -> None:
            """Reads and logs the scalars of the steps under way."""
            while pending:
                step, ids, scalars = pending.popleft()
                values = {key: float(value) for key, value in scalars.items()}
                # A gradient that is not finite spoils the parameters a step before the loss shows.
                for key in ("loss", "gradient_norm"):
                    if not math.isfinite(values[key]):
                        raise UserError(
                            f"the {key.replace('_', ' ')} of {name} is {values[key]} at step "
                            f"{step}, on the clips {', '.join(ids)}: look at these clips, "
                            "or lower the learning rate or clip gradients, with another --workdir; "
                            f"{directory / 'checkpoints'} holds the last good states"
                        )
                bar.set_postfix(loss=f"{values['loss']:.2f}", refresh=False)
                bar.update(1)
                if step % log_every == 0 or step == total:
                    writer.write_scalars(*name, step, values)

        first = int(state.step)
        bar = progress_bar(total, first, str(name), enabled=jax.process_index() == 0)
        with _saying_what_is_next(name, checkpoints), SoftStop() as stop, bar:
            # Save after validation, and only then ask for the next batch: so the state, the
            # scores and the iterator's place in a checkpoint belong to the same step.
            for step in range(first + 1, total + 1):
                batch = dict(next(batches))
                ids = [str(clip) for clip in batch.pop("ids") if clip]
                arrays = put_batch(method.trains_on(batch), mesh)
                shapes = tuple((key, array.shape) for key, array in sorted(arrays.items()))
                if shapes not in compiled:
                    with compiling(str(name), f"the training step{_of_clips(arrays)}"):
                        compiled[shapes] = train_step.lower(moving, frozen, arrays).compile()
                moving, scalars = compiled[shapes](moving, frozen, arrays)
                state = moving.beside(frozen)
                # The scalars of the step before are ready; this one's are still being computed.
                settle()
                pending.append((step, ids, scalars))
                if validate is None and step == total:
                    settle()
                    checkpoints.save(state, batches, {SCORE: math.nan})
                elif validate is not None and (step % validate_every == 0 or step == total):
                    settle()
                    with stop.at_once():
                        scores = validate(state.parameters)
                    shown = {key: value for key, value in scores.items() if key != SCORE}
                    writer.write_scalars(*name, step, shown, kind="val")
                    say(f"[{name}] step {step}: validation {_in_words(shown)}")
                    if not math.isfinite(scores[SCORE]):
                        say(f"[{name}] step {step} has no score, so it cannot be the best")
                    checkpoints.save(state, batches, scores)
                elif step % stage.config["checkpoint_every"] == 0 or step == kept or stop.asked:
                    settle()
                    checkpoints.save(state, batches, None)
                if stop.asked:  # after the last step, too: the scores would take minutes more
                    checkpoints.wait()
                    raise KeyboardInterrupt
        checkpoints.wait()
        writer.flush()


@contextlib.contextmanager
def _saying_what_is_next(name: PhaseName, checkpoints: PhaseCheckpoints) -> Iterator[None]:
    """Ctrl-C inside says from where the same command will resume the phase."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        checkpoints.wait()
        latest = checkpoints.latest_step
        does = (
            f"resumes {name} from step {latest}" if latest > 0 else f"starts {name} again, step 0"
        )
        raise Stopped(f"the same command {does}") from interrupt


def make_train_step(
    stage: Stage,
    name: PhaseName,
    optimizer: optax.GradientTransformation,
    schedule: Callable,
    shardings: TrainState,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Compiles (state, frozen, batch) -> (state, scalars); the random key is that of seed and step.

    The state comes and goes without the parameters that are frozen: what a step gives it writes,
    and they would be most of it.

    Scalars: loss and its parts, the gradient's global norm before clipping, the learning rate.
    Where a batch may count for nothing (`Method.counts`) also optimizer_steps, how many steps the
    optimiser has made after it; the learning rate is that of the optimiser's step, not the batch's.

    Args:
      stage: on its data.
      name: of the phase.
      optimizer: of the phase.
      schedule: of its learning rate.
      shardings: of the state, without what is frozen.
    """
    method, seed, total = stage.method, stage.seed(name), stage.steps(name)
    # On CPU a checkpoint being written may look at the very memory that donation would reuse.
    donate = () if jax.default_backend() == "cpu" else (0,)
    frames_per_pass = suitable(stage.config["train"]["frames_per_pass"])

    @functools.partial(
        jax.jit,
        donate_argnums=donate,
        out_shardings=(shardings, None),
        compiler_options=compiler_options(),
    )
    def train_step(state: TrainState, frozen: dict[str, jax.Array], batch: dict[str, jax.Array]):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        progress = state.step.astype(jnp.float32) / total

        (loss, aux), gradients = value_and_gradient(
            method,
            state.trainable,
            frozen | state.mutable | state.memory,
            batch,
            key,
            progress,
            frames_per_pass=frames_per_pass,
            mesh=stage.mesh,
        )
        counts = None if method.counts is None else method.counts(batch)
        made = state.step if counts is None else steps_made(state.opt_state)
        scalars = aux.scalars | {
            "loss": loss,
            "gradient_norm": optax.global_norm(gradients),
            "learning_rate": jnp.asarray(schedule(made)),
        }
        new = state.apply_gradients(gradients, optimizer, counts, aux.mutable, aux.memory)
        if counts is not None:
            scalars["optimizer_steps"] = steps_made(new.opt_state)
        return new, scalars

    return train_step


def _of_clips(batch: Mapping[str, jax.Array]) -> str:
    """Which of the shapes of batches this is: clips of one length may have batches of their own."""
    if "valid" not in batch:
        return ""
    clips, seconds = batch["valid"].shape
    return f" for batches of {clips} clip{'s' * (clips != 1)} of {seconds} s"


def _in_words(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.3f}" for key, value in scores.items())
