"""TPAVI against measured numbers; `test_golden.py` runs these."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aavs_jax.methods.functional import functional
from aavs_jax.methods.tpavi import objective
from aavs_jax.methods.tpavi.config import TPAVIConfig, TPAVILoss
from aavs_jax.methods.tpavi.network import TPAVI
from aavs_jax.methods.tpavi.weights import TPAVI_FORMAT
from tests.parity.golden import (
    ACTIVATIONS,
    COMPILER,
    GRADIENTS,
    LOSSES,
    Names,
    channels_first,
    check,
)

STATISTICS = 1e-5  # of running statistics after a step
NAMES = Names(TPAVI_FORMAT)
S4 = TPAVILoss(avm_weight=0.0)
VARIANTS = {
    "avm_normalised": TPAVILoss(avm_normalised=True),
    "avm_vv": TPAVILoss(avm_distance="nearest"),
    "avm_euclidean": TPAVILoss(avm_distance="euclidean"),
    "avm_thresholded": TPAVILoss(avm_thresholded=True),
}


def model_config(golden) -> TPAVIConfig:
    sizes = json.loads(str(golden["config_json"]))
    semantic = sizes["task"] == "semantic"
    if sizes["backbone"] == "resnet50":
        backbone = {
            "backbone": "resnet",
            "resnet": {name: sizes[name] for name in ("stem", "planes", "depths")},
        }
    else:
        names = {"sr_ratios": "reductions"}
        keys = ("embed_dims", "num_heads", "depths", "mlp_ratios", "sr_ratios")
        pvt = {names.get(key, key): sizes[key] for key in keys}
        backbone = {"backbone": "pvt", "pvt": pvt}
    return TPAVIConfig.from_dict(
        {
            **backbone,
            "task": sizes["task"],
            "num_classes": sizes["num_classes"] if semantic else 2,
            "feature_size": sizes["channel"],
            # Never run here: the files start from embeddings.
            "audio": {"blocks": [[1]], "fully_connected": [golden["audio"].shape[-1]]},
        }
    )


class TestTPAVI:
    """A file's network in evaluation and in training, run and differentiated once each."""

    @pytest.fixture(scope="class")
    @classmethod
    def replay(cls, tpavi_golden):
        """Everything a file asks for, computed once."""
        golden, config = tpavi_golden, model_config(tpavi_golden)
        sizes = json.loads(str(golden["config_json"]))
        net = functional(lambda: TPAVI(config))
        given = NAMES.to_parameters({k[6:]: v for k, v in golden.items() if k.startswith("param/")})
        unheard = [path for path in net.shapes if path.startswith("audio_encoder/")]
        parameters = given | {path: np.zeros(net.shapes[path].shape) for path in unheard}
        parameters = {path: jnp.asarray(value, jnp.float32) for path, value in parameters.items()}

        def clips(array):
            return array.reshape(sizes["clips"], sizes["frames"], *array.shape[1:])

        frames = clips(np.moveaxis(golden["pixel_values"], 1, -1))
        valid, weights = np.ones(frames.shape[:2], bool), np.ones(len(golden["audio"]), np.float32)
        if config.task == "semantic":
            valid, weights = clips(golden["vid_flag"]) > 0, golden["gt_flag"]
            labels = golden["labels"]
        else:
            labels = golden["masks"][:, 0]
        first = np.tile(np.arange(sizes["frames"]) == 0, sizes["clips"]).astype(np.float32)

        def run(parameters, training):
            network = net.network(parameters)
            found = network(frames, clips(golden["audio"]), valid, training=training, taps=True)
            return found, net.statistics(network)

        def losses(outputs):
            total, terms = objective.loss(outputs, labels, weights, TPAVILoss())
            s4, _ = objective.loss(outputs, labels, first, S4)
            return {"total": total, "s4": s4, **terms}

        def evaluated(parameters):
            outputs, _ = run(parameters, False)
            variants = {k: objective.matching(outputs, weights, v) for k, v in VARIANTS.items()}
            return outputs, losses(outputs), variants

        def trained(trainable, name):
            outputs, after = run(parameters | trainable, True)
            found = losses(outputs)
            return found[name], (outputs, found, after)

        trainable = {k: v for k, v in parameters.items() if k not in net.mutable}
        with jax.default_matmul_precision("highest"):
            seen = jax.jit(evaluated, compiler_options=COMPILER)(parameters)
            _, in_training = jax.jit(
                lambda trainable: trained(trainable, "total"), compiler_options=COMPILER
            )(trainable)
        gradient = jax.jit(
            jax.grad(trained, has_aux=True), static_argnames="name", compiler_options=COMPILER
        )

        def differentiate(name):
            """Of a loss, by our paths."""
            with jax.default_matmul_precision("highest"):
                return gradient(trainable, name=name)[0]

        return types.SimpleNamespace(
            golden=golden,
            task=config.task,
            rows=sizes["tap_frames"],
            net=net,
            given=given,
            evaluated=seen,
            trained=in_training,
            differentiate=differentiate,
        )

    @pytest.fixture(scope="class")
    @classmethod
    def gradients(cls, replay):
        """Of the whole loss, by our paths; of one file in every test run, of all with -m slow."""
        return replay.differentiate("total")

    def test_every_name_has_its_place(self, replay):
        wanted = {p for p in replay.net.shapes if not p.startswith("audio_encoder/")}
        assert set(replay.given) == wanted
        shapes = {path: array.shape for path, array in replay.given.items()}
        assert shapes == {path: replay.net.shapes[path].shape for path in wanted}

    def test_taps(self, replay):
        outputs, _, _ = replay.evaluated
        ours = {
            "backbone": outputs.taps["backbone"],
            "dilated": outputs.taps["dilated"],
            "tpavi_branch": outputs.taps["branch"],
            "tpavi": outputs.taps["tpavi"],
            "v_map": outputs.seen,
            "path": outputs.taps["path"],
            "audio": outputs.heard,
        }
        pairs = []
        for name, golden in replay.golden.items():
            kind, part, *stage = name.split("/")[:3] if name.startswith("tap/") else ("", "")
            if kind and part in ours:
                array = np.asarray(ours[part][int(stage[0])])[replay.rows]
                array = array if part == "audio" else channels_first(array)
                pairs.append((name, array, golden))
        assert len(pairs) == 4 * len(ours)
        check(pairs, ACTIVATIONS)

    def test_output_and_losses(self, replay):
        outputs, losses, variants = replay.evaluated
        golden = replay.golden
        check([("output", channels_first(outputs.logits), golden["output"])], ACTIVATIONS)
        pairs = self._losses(losses, golden, "loss/", replay.task)
        for name, array in golden.items():
            if name.startswith("loss_variant/"):
                pairs.append((name, variants[name.partition("/")[2]], array))
        assert len(pairs) == (8 if replay.task == "binary" else 5)
        check(pairs, LOSSES)

    def test_training(self, replay):
        outputs, losses, after = replay.trained
        golden, rows = replay.golden, replay.rows
        seen = {
            "train/output": outputs.logits,
            "train/tap/backbone/3": outputs.taps["backbone"][3],
            "train/tap/tpavi/0": outputs.taps["tpavi"][0],
        }
        check(
            [(n, channels_first(np.asarray(x)[rows]), golden[n]) for n, x in seen.items()],
            ACTIVATIONS,
        )
        check(self._losses(losses, golden, "train/loss/", replay.task), LOSSES)
        names = [name[12:] for name in golden if name.startswith("train/after/")]
        assert len(names) == len(after)
        moved = NAMES.to_checkpoint(after, names)
        check([(name, moved[name], golden[f"train/after/{name}"]) for name in names], STATISTICS)

    def test_gradients(self, replay, gradients):
        golden = replay.golden
        names = [str(name)[11:] for name in golden if name.startswith("train/grad/")]
        found = NAMES.to_checkpoint(gradients, names)
        check([(name, found[name], golden[f"train/grad/{name}"]) for name in names], GRADIENTS)

    def test_gradient_norms(self, replay, gradients):
        golden = replay.golden
        self._norms(gradients, golden["train/grad_norms"], golden)
        if replay.task == "binary":
            of_s4 = replay.differentiate("s4")
            self._norms(of_s4, golden["train/grad_norms_s4"], golden)

    def test_backbones_inside(self, replay):
        """The stem, or the first block of each stage: see also the tests against transformers."""
        golden = replay.golden
        frames = np.moveaxis(golden["pixel_values"], 1, -1)[replay.rows]
        if "tap/stem" in golden:
            backbone = replay.net.network(self._all(replay)).backbone
            stem = jax.jit(lambda x: backbone.enter(x, False), compiler_options=COMPILER)(frames)
            check([("tap/stem", channels_first(stem), golden["tap/stem"])], ACTIVATIONS)
            return

        def first_blocks(parameters):
            x, found = frames, {}
            for index, stage in enumerate(replay.net.network(parameters).backbone.stages):
                embedded = stage.patch_embedding(x)
                block = stage.blocks[0]
                attended = block.attention(block.attention_norm(embedded))
                mixed = block.mlp(block.mlp_norm(embedded + attended))
                found[f"tap/pvt/patch_embed/{index}"] = embedded
                found[f"tap/pvt/block0_attn/{index}"] = attended
                found[f"tap/pvt/block0_mlp/{index}"] = mixed
                found[f"tap/pvt/block0/{index}"] = embedded + attended + mixed
                x = stage(x, None)
            return found

        with jax.default_matmul_precision("highest"):
            found = jax.jit(first_blocks, compiler_options=COMPILER)(self._all(replay))
        assert {name for name in golden if name.startswith("tap/pvt/")} == set(found)
        check(
            [(n, np.asarray(x).reshape(golden[n].shape), golden[n]) for n, x in found.items()],
            ACTIVATIONS,
        )

    @staticmethod
    def _all(replay):
        unheard = {
            path: np.zeros(leaf.shape, np.float32)
            for path, leaf in replay.net.shapes.items()
            if path.startswith("audio_encoder/")
        }
        return replay.given | unheard

    @staticmethod
    def _losses(losses, golden, place, task):
        if task == "semantic":
            names = {"avss": "total", "avss/ce": "cross_entropy", "avss/avm": "matching"}
        else:
            names = {
                "ms3": "total",
                "ms3/bce": "cross_entropy",
                "ms3/avm": "matching",
                "s4": "s4",
            }
        return [(place + n, losses[ours], golden[place + n]) for n, ours in names.items()]

    @staticmethod
    def _norms(gradients, norms, golden):
        names = [str(name) for name in golden["grad_names"]]
        unused = {str(name) for name in golden["grad_unused"]}
        largest, pairs, not_zero = norms.max(), [], {}
        used = [name for name in names if name not in unused]
        found = NAMES.to_checkpoint(gradients, used)
        assert unused == {name for name in names if NAMES.rule(name) is None}
        for name, wanted in zip(names, norms, strict=True):
            if name in unused:
                assert wanted == 0
                continue
            norm = np.linalg.norm(found[name].astype(np.float64))
            if wanted > 1e-6 * largest and not name.endswith("W_z.0.bias"):
                pairs.append((name, norm, wanted))
            elif not norm < 1e-6 * largest:
                not_zero[name] = norm / largest
        assert not not_zero
        check(pairs, GRADIENTS)
