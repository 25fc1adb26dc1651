"""What the checks of golden files share: tolerances, comparing, checkpoints' names.

Tolerances are those that come with the files: 1e-4 of the largest value for activations, 1e-4
relative for losses, 1e-3 for gradients.
"""

import dataclasses

import numpy as np

from aavs_jax.convert.naming import inverse_plan, pattern
from aavs_jax.methods.parts.key_tables import TENSORS, Format

ACTIVATIONS = 1e-4
LOSSES = 1e-4
GRADIENTS = 1e-3
# These networks are compiled for a single run: the time goes into compiling.
COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

# fixture of conftest.py -> whether a file is for it, told by the names in it and its config_json.
KINDS = {
    "network_golden": lambda names, config: (
        {"config_json", "pixel_values", "class_logits", "loss", "grad_names"} <= names
    ),
    "audio_golden": lambda names, config: (
        {"audio/log_mel_examples", "binary/0/scores", "semantic/miou"} <= names
    ),
    "tpavi_golden": lambda names, config: config.get("network") == "tpavi",
    "avsegformer_golden": lambda names, config: config.get("network") == "avsegformer",
    "cavp_golden": lambda names, config: {"mono", "stereo"} <= config.keys(),
}


def relative_error(ours, golden) -> float:
    """The largest difference relative to the largest golden value; infinite if shapes differ."""
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    if ours.shape != golden.shape or not np.isfinite(ours).all():
        return float("inf")
    return float(np.abs(ours - golden).max() / max(np.abs(golden).max(), 1e-30))


def check(pairs, tolerance, astray: float = 0.0) -> None:
    """Asserts all of (name, ours, golden) at once, and prints the worst.

    A share of `astray` of them may be up to five times as far from golden.
    """
    errors = {name: relative_error(ours, golden) for name, ours, golden in pairs}
    assert errors, "nothing to compare"
    worst = max(errors, key=errors.get)
    print(f"largest relative error {errors[worst]:.1e} ({worst}) of {len(errors)}")
    beyond = {name: error for name, error in errors.items() if not error <= tolerance}
    assert len(beyond) <= astray * len(errors), beyond
    assert errors[worst] <= (5 if astray else 1) * tolerance


def channels_first(x) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)


@dataclasses.dataclass(frozen=True)
class Names:
    """A format's key table, applied to some of a file's tensors, without knowing the network."""

    format: Format

    def rule(self, name: str) -> tuple[tuple[str, ...], str] | None:
        """Our paths and the transform of a checkpoint's tensor; None for one that is left over.

        Raises:
          KeyError: if it is neither known nor left over, or known twice.
        """
        known = [k for k in self.format.left_over if pattern(k.theirs).fullmatch(name)]
        steps = inverse_plan(self.format, [name])
        found = [None for _ in known[:1]] + [(step.ours, step.how) for step in steps]
        if len(found) != 1:
            raise KeyError(f"{name} fits {len(found)} rules")
        return found[0]

    def to_parameters(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A checkpoint's tensors, all or some, as our parameters by path.

        Raises:
          KeyError: for a tensor without a rule, and for a parameter given twice.
        """
        parameters = {}
        for name, tensor in tensors.items():
            rule = self.rule(name)
            if rule is None:
                continue
            paths, how = rule
            for path, part in zip(paths, np.split(tensor, len(paths)), strict=True):
                if path in parameters:
                    raise KeyError(f"{path} is given twice, at last by {name}")
                parameters[path] = np.ascontiguousarray(TENSORS[how][0](part))
        return parameters

    def to_checkpoint(
        self, parameters: dict[str, np.ndarray], names: list[str]
    ) -> dict[str, np.ndarray]:
        """The inverse, for the names asked for."""
        tensors = {}
        for name in names:
            paths, how = self.rule(name)
            parts = [TENSORS[how][1](np.asarray(parameters[path])) for path in paths]
            tensors[name] = np.concatenate(parts)
        return tensors
