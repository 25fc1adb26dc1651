"""The networks, the losses, the metrics and the audio front end against measured numbers.

    python -m pytest tests/parity/test_golden.py --golden=FILE.npz

checks one file; without the option all that are found. Of each method the checks are in a module
of their own, golden_<method>.py.
"""

import re

import jax.numpy as jnp
import numpy as np

from aavs_jax.methods.objectives import mask_classification
from aavs_jax.scoring import metrics
from data_pipelines.loading import front_ends
from tests.parity.golden import ACTIVATIONS, check
from tests.parity.golden_aavs import TestAAVS  # noqa: F401
from tests.parity.golden_avsegformer import TestAVSegFormer  # noqa: F401
from tests.parity.golden_cavp import TestCAVP, test_crops, test_set_scores  # noqa: F401
from tests.parity.golden_tpavi import TestTPAVI  # noqa: F401


def numbered(golden, group: str) -> list[dict[str, np.ndarray]]:
    """The entries 'group/0/*', 'group/1/*', ... of a file."""
    found = {}
    for name, array in golden.items():
        match = re.fullmatch(rf"{group}/(\d+)/(.+)", name)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = array
    return [found[index] for index in sorted(found)]


def test_log_mel(audio_golden):
    assert int(audio_golden["audio/sample_rate"]) == front_ends.SAMPLE_RATE
    waveform = audio_golden["audio/waveform_int16"].astype(np.float32) / 32768
    examples = front_ends.log_mel_examples(waveform)
    check([("log-mel", examples, audio_golden["audio/log_mel_examples"])], ACTIVATIONS)


def test_binary_metrics(audio_golden):
    pairs = []
    for index, clip in enumerate(numbered(audio_golden, "binary")):
        mask, fmap = mask_classification.binary_prediction(
            jnp.moveaxis(jnp.asarray(clip["scores"]), 1, -1)
        )
        valid = np.ones((1, len(mask)), bool)
        state = metrics.init("binary", (metrics.PROTOCOL,), num_classes=2, clips=1)
        maps = {"stepping_stones": fmap[None]}
        state = metrics.update(state, mask[None], clip["target"][None], valid, [0], maps=maps)
        result = metrics.result(state)[metrics.PROTOCOL]
        pairs.append((f"binary/{index}/miou", result["J"], clip["miou"]))
        pairs.append((f"binary/{index}/fscore", result["F"], clip["fscore"]))
    check(pairs, ACTIVATIONS)


def test_semantic_metrics(audio_golden):
    golden = {
        name.removeprefix("semantic/"): array
        for name, array in audio_golden.items()
        if re.fullmatch(r"semantic/[a-z_]+", name)
    }
    clips = numbered(audio_golden, "semantic")
    classes = len(golden["miou_per_class"])
    state = metrics.init("semantic", (metrics.PROTOCOL,), num_classes=classes, clips=len(clips))
    for index, clip in enumerate(clips):
        valid = np.ones((1, len(clip["target"])), bool)
        state = metrics.update(
            state, clip["prediction"][None], clip["target"][None], valid, [index]
        )
    result = metrics.result(state)[metrics.PROTOCOL]
    ours = {
        "miou": "mIoU",
        "miou_no_background": "mIoU_no_background",
        "miou_per_class": "mIoU_per_class",
        "fscore": "F",
        "fscore_no_background": "F_no_background",
        "fscore_per_class": "F_per_class",
        "frames_per_class": "frames_per_class",
    }
    check([(name, result[ours[name]], array) for name, array in golden.items()], ACTIVATIONS)
