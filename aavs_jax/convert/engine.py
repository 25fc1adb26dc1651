"""Applies a key table, in both directions, and accounts for every tensor.

What comes back from `to_theirs` is a format's normal form: every tensor bit for bit, under the name
that the software's own saving gives it, without what a wrapper had put in front of the names.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aavs_jax.convert.files import Tensor
from aavs_jax.convert.formats import FORMATS
from aavs_jax.convert.naming import Step, fill, pattern, plan
from aavs_jax.convert.recognising import normal_names
from aavs_jax.errors import UserError
from aavs_jax.methods.parts.key_tables import TENSORS, ByPath, Format, LeftOver

# What a weight may be stored as. All of them fit into float32, so nothing is lost.
DTYPES = ("float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Fate:
    """What became of one tensor of theirs, or of one parameter of ours.

    Attributes:
      theirs: name in the file, as it stands there; '' if none.
      ours: paths of the parameters; () if none.
      shape: of their tensor; () if there is none.
      our_shapes: of the parameters, in the order of `ours`.
      dtype: of their tensor in the file; '' if there is none.
      what: 'mapped', 'left over' (theirs, kept beside the parameters), 'new' (not in the file read:
        ours; or made for the file written: theirs) or 'left behind' (without a place in the format
        written: a parameter of ours, or what was left over when it was read).
      reason: why, where it is not simply mapped.
      digest: first 12 hex digits of the SHA-256 of their tensor's bytes; '' if there is none.
    """

    theirs: str
    ours: tuple[str, ...]
    shape: tuple[int, ...]
    our_shapes: tuple[tuple[int, ...], ...]
    dtype: str
    what: str
    reason: str = ""
    digest: str = ""


def fate_of_ours(path: str, shape: Sequence[int], what: str, reason: str) -> Fate:
    """Of a parameter that no tensor of theirs gave or takes."""
    return Fate("", (path,), (), (tuple(shape),), "", what, reason)


def _fate(name, value, what, reason="", ours=(), parameters=None) -> Fate:
    return Fate(
        theirs=name,
        ours=ours,
        shape=tuple(value.shape),
        our_shapes=tuple(tuple(parameters[path].shape) for path in ours),
        dtype=value.dtype.name,
        what=what,
        reason=reason,
        digest=hashlib.sha256(np.ascontiguousarray(value).reshape(-1).view(np.uint8)).hexdigest()[
            :12
        ],
    )


def allowance(patterns: Sequence[str]) -> Callable[..., bool]:
    """A function: names -> whether one of the patterns matches one of them as a whole.

    Raises:
      UserError: a pattern is no regular expression.
    """
    expressions = []
    for text in patterns:
        try:
            expressions.append(re.compile(text))
        except re.error as error:
            raise UserError(
                f"--allow={text!r} is no regular expression ({error}): correct it"
            ) from None
    return lambda *names: any(e.fullmatch(name) for e in expressions for name in names)


# -------------------------------------------------------------------------------- theirs -> ours


def to_ours(
    format: Format,
    tensors: Mapping[str, Tensor],
    wanted: ByPath,
    allow: Sequence[str] = (),
    progress: Any = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[Fate]]:
    """Their tensors as our parameters, exhaustively. Nothing is read before all names are in order.

    Args:
      format: from `recognise`.
      tensors: the file's, by name; each is read once, and its memory then released.
      wanted: path -> shape of each parameter, from `sizes.wanted`.
      allow: regular expressions that each match a name in the file or a path of ours as a whole:
        what has no place or does not fit is left over, what is missing is new, NaN is taken.
      progress: a bar (`progress.progress_bar(total=len(tensors))`); None shows nothing.

    Returns:
      Parameters (float32, by path); the tensors left over (as in the file, by normal name); a fate
      for each tensor, and for each parameter that none gave.

    Raises:
      UserError: a tensor has no place, a shape or a type does not fit, a parameter is missing,
        numbers are not finite; and no pattern allows it.
    """
    allowed = allowance(allow)
    steps, reasons, new = _account(format, tensors, wanted, allowed)
    normal = normal_names(format, tensors)
    parameters: dict[str, np.ndarray] = {}
    left_over: dict[str, np.ndarray] = {}
    fates: list[Fate] = []
    for name, tensor in tensors.items():
        value = tensor.read()
        if name in reasons:
            left_over[normal[name]] = np.array(value, order="C")
            fates.append(_fate(name, value, "left over", reasons[name]))
        else:
            ours, reason = steps[name].ours, ""
            converted = _converted(value, steps[name])
            if not all(np.isfinite(part).all() for part in converted.values()):
                reason = "holds NaN or infinite numbers"
                if not allowed(name, *ours):
                    raise UserError(
                        f"{name} {reason}: take an undamaged file, or allow it with "
                        f"--allow='{re.escape(name)}'"
                    )
            parameters |= converted
            fates.append(_fate(name, value, "mapped", reason, ours, parameters))
        tensor.release()
        if progress is not None:
            progress.update(1)
    fates += [fate_of_ours(path, wanted[path], "new", reason) for path, reason in new.items()]
    return parameters, left_over, fates


def _account(
    format: Format, tensors: Mapping[str, Tensor], wanted: ByPath, allowed: Callable[..., bool]
) -> tuple[dict[str, Step], dict[str, str], dict[str, str]]:
    """By names, shapes and types alone: what maps, what is left over and what is new.

    Returns:
      Name in the file -> step, of what maps; name -> reason, of what is left over; path -> reason,
      of what is new.
    """
    by_name = {step.theirs: step for step in plan(format, wanted)}
    names = {path: step.theirs for step in by_name.values() for path in step.ours}
    steps, reasons, new, wrong = {}, {}, {}, []
    given, excused = set(), {}  # paths with a tensor; those whose tensor does not fit, and why
    for name, spelt in normal_names(format, tensors).items():
        if step := by_name.get(spelt):
            if not (misfit := _misfit(tensors[name], step, wanted)):
                steps[name] = step
                given.update(step.ours)
                continue
            reasons[name] = misfit
            excused |= dict.fromkeys(step.ours, f"{name} {misfit}")
        elif known := _known(format, spelt):
            reasons[name] = known.reason
            continue
        else:
            reasons[name] = "has no place in this network"
        if not allowed(name, *(step.ours if step else ())):
            wrong.append((name, reasons[name]))
    for path in wanted:
        if path in given:
            continue
        absent = (reason for ours, reason in format.absent if pattern(ours).fullmatch(path))
        new[path] = next(absent, "") or excused.get(path) or "not in the file"
        if new[path] == "not in the file" and not allowed(path, names.get(path, "")):
            missing = names.get(path, "what would be its tensor")
            wrong.append((path, f"is missing ({missing} is not in the file)"))
    if wrong:
        (name, reason), *others = wrong
        more = f" (and so on: {len(others)} more, such as {others[0][0]})" if others else ""
        if reason.startswith("is float64"):
            advice = "save such weights as float32"
        else:
            advice = f"if that is as it should be, allow it with --allow='{re.escape(name)}'"
        raise UserError(f"{format.title}: {name} {reason}{more}; {advice}")
    return steps, reasons, new


def _converted(value: np.ndarray, step: Step) -> dict[str, np.ndarray]:
    """Parameters by path: new arrays, float32, C order."""
    ours, _ = TENSORS[step.how]
    parts = zip(step.ours, np.split(value, len(step.ours)), strict=True)
    return {path: np.array(ours(part), np.float32, order="C") for path, part in parts}


def _misfit(tensor: Tensor, step: Step, wanted: ByPath) -> str:
    """Why a tensor cannot become its parameters; '' if it can."""
    dtype = np.dtype(tensor.dtype).name
    if dtype not in DTYPES:
        return f"is {dtype}, which a weight here cannot be ({', '.join(DTYPES)} can)"
    # Without numbers behind it: only its shape is asked for.
    _, theirs = TENSORS[step.how]
    parts = [theirs(np.broadcast_to(np.float32(0), wanted[path])) for path in step.ours]
    fitting = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    if tuple(tensor.shape) == fitting:
        return ""
    path = step.ours[0]
    return f"is {_by(tensor.shape)} where {_by(fitting)} is needed (for {path} {_by(wanted[path])})"


def _known(format: Format, name: str) -> LeftOver | None:
    return next((k for k in format.left_over if pattern(k.theirs).fullmatch(name)), None)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"


# -------------------------------------------------------------------------------- ours -> theirs


def to_theirs(
    format: Format,
    parameters: Mapping[str, np.ndarray],
    left_over: Mapping[str, np.ndarray],
    stored_as: Mapping[str, str],
    *,
    complete: bool = False,
) -> tuple[dict[str, np.ndarray], list[Fate]]:
    """The inverse of `to_ours`, bit for bit, under normal names.

    Args:
      format: to be written.
      parameters: float32, by path.
      left_over: by normal name, of this format or another one's; of another, only what has a role
        in both comes along.
      stored_as: normal name -> dtype where it was not float32. Kept to where the numbers still are
        such; where training changed them they are written in float32, without loss.
      complete: also make what a strict loader asks for and weights of another origin lack.

    Returns:
      Tensors in C order, and a fate for each of them and for what is left behind.
    """
    tensors: dict[str, np.ndarray] = {}
    fates: list[Fate] = []
    lost = dict.fromkeys(parameters)
    for step in plan(format, parameters):
        _, theirs = TENSORS[step.how]
        parts = [theirs(np.asarray(parameters[path])) for path in step.ours]
        whole = np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))
        tensors[step.theirs] = _narrowed(whole, stored_as.get(step.theirs, "float32"))
        fate = _fate(step.theirs, tensors[step.theirs], "mapped", "", step.ours, parameters)
        fates.append(fate)
        for path in step.ours:
            lost.pop(path, None)
    for name, value in left_over.items():
        there, reason = _place_of(format, name)
        if there is None or there in tensors:
            fates.append(_fate(name, value, "left behind", reason))
            continue
        tensors[there] = np.array(value, order="C")  # ascontiguousarray would make 0-dim 1-dim
        fates.append(_fate(there, value, "left over", reason))
    reason = f"{format.title} has no place for it"
    for path in lost:
        fates.append(fate_of_ours(path, parameters[path].shape, "left behind", reason))
    for name, make in format.fillers.items() if complete else ():
        if name not in tensors and (value := make(parameters)) is not None:
            tensors[name] = value
            fates.append(_fate(name, value, "new", "asked for by strict loaders"))
    return tensors, fates


def _narrowed(value: np.ndarray, dtype: str) -> np.ndarray:
    """float32 as `dtype`, if it comes back from there bit for bit; else as it is."""
    if dtype == "float32":
        return value
    narrow = value.astype(np.dtype(dtype))
    same = np.array_equal(narrow.astype(np.float32).view(np.uint32), value.view(np.uint32))
    return narrow if same else value


def _place_of(format: Format, name: str) -> tuple[str | None, str]:
    """The name of a left-over tensor in this format, None if it has none; and why it is there."""
    if known := _known(format, name):
        return name, known.reason
    for other in FORMATS.values():
        if origin := _known(other, name):
            values = pattern(origin.theirs).fullmatch(name).groupdict()
            for known in format.left_over:
                if origin.role and known.role == origin.role:
                    return fill(known.theirs, values), known.reason
            return None, f"{origin.reason}; {format.title} has no place for it"
    return name, "allowed when it was read"  # no table has it: it came in by --allow
