"""AAVS against measured numbers; `test_golden.py` runs these."""

import json
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import abstract_model
from aavs_jax.methods.objectives import mask_classification, set_prediction
from aavs_jax.methods.objectives.set_prediction_config import LossConfig
from aavs_jax.methods.objectives.targets import make_targets
from tests.parity.golden import ACTIVATIONS, COMPILER, GRADIENTS, LOSSES, channels_first, check

READOUT_FRAME = (384, 384)  # the reference resizes to this whatever the size of its input
VANISHING = 1e-4  # bound for what is zero but for rounding


def model_config(golden) -> AAVSConfig:
    sizes = json.loads(str(golden["config_json"]))
    swin = sizes["swin"]
    assert sizes["feature_size"] == sizes["mask_feature_size"] == sizes["hidden_dim"]
    assert swin["layer_norm_eps"] == 1e-5
    semantic = sizes["task"] == "avss"
    return AAVSConfig.from_dict(
        {
            "task": "semantic" if semantic else "binary",
            "prior": semantic,
            "num_classes": sizes["num_classes"],
            "num_queries": sizes["num_queries"],
            "backbone": {
                key: swin[key]
                for key in (
                    "embed_dim",
                    "depths",
                    "num_heads",
                    "window_size",
                    "patch_size",
                    "mlp_ratio",
                )
            },
            # Never run here: the files start from embeddings.
            "audio": {"blocks": [[1]], "fully_connected": [golden["audio"].shape[-1]]},
            "feature_size": sizes["feature_size"],
            "num_heads": sizes["num_attention_heads"],
            "encoder_layers": sizes["encoder_layers"],
            "encoder_ffn": sizes["encoder_feedforward_dim"],
            "decoder_layers": sizes["decoder_layers"] - 1,
            "decoder_ffn": sizes["dim_feedforward"],
            "audio_hidden": golden["param/audio_proj.0.weight"].shape[0],
        }
    )


def loss_config(golden) -> LossConfig:
    sizes = json.loads(str(golden["config_json"]))
    return LossConfig(
        class_weight=sizes["class_weight"],
        mask_weight=sizes["mask_weight"],
        dice_weight=sizes["dice_weight"],
        no_object_weight=sizes["no_object_weight"],
        num_points=sizes["train_num_points"],
        oversample_ratio=sizes["oversample_ratio"],
        importance_ratio=sizes["importance_sample_ratio"],
        max_targets=sizes["num_classes"],
    )


def by_path(tree) -> dict:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in flat}


def split_draws(golden, predictions: int, frames: int) -> list[dict[str, np.ndarray]]:
    """The file's random numbers by prediction: it has the last prediction's first."""
    draws = [golden[name] for name in sorted(golden) if name.startswith("rand/")]
    each = frames + 2
    assert len(draws) == predictions * each
    ordered = [None] * predictions
    for turn, prediction in enumerate([predictions - 1, *range(predictions - 1)]):
        *matching, candidates, fresh = draws[turn * each : (turn + 1) * each]
        ordered[prediction] = {
            "matching": np.concatenate(matching),
            "candidates": candidates,
            "fresh": fresh,
        }
    return ordered


def into_slots(pairs: np.ndarray, query: np.ndarray, present: np.ndarray) -> np.ndarray:
    """[pairs,P,2], frame by frame and by ascending query -> [N,M,P,2], by target."""
    slots = np.zeros((*query.shape, *pairs.shape[1:]), pairs.dtype)
    pair = iter(pairs)
    for frame in range(len(query)):
        for slot in sorted(np.flatnonzero(present[frame]), key=lambda m, n=frame: query[n, m]):
            slots[frame, slot] = next(pair)
    assert next(pair, None) is None
    return slots


class TestAAVS:
    """A file's network, run and differentiated once each."""

    @pytest.fixture(scope="class")
    @classmethod
    def replay(cls, network_golden, checkpoint_names):
        """Everything a network file asks for, computed once."""
        golden = network_golden
        tensors = {name[6:]: golden[name] for name in golden if name.startswith("param/")}
        given = checkpoint_names.to_parameters(tensors)
        graphdef, state = nnx.split(abstract_model(model_config(golden)))
        state = nnx.to_pure_dict(state)
        structure = jax.tree.structure(state)
        wanted = by_path(state)
        parameters = jax.tree.unflatten(
            structure,
            [jnp.asarray(given.get(path, np.zeros(leaf.shape))) for path, leaf in wanted.items()],
        )
        prior = golden.get("sounding_mask")
        frames = np.moveaxis(golden["pixel_values"], 1, -1)
        targets = make_targets(
            golden["segmentation"],
            max_targets=loss_config(golden).max_targets,
            num_classes=loss_config(golden).max_targets,
        )

        def network(parameters):
            return nnx.merge(graphdef, parameters)(frames, golden["audio"], prior, taps=True)

        def losses(class_logits, mask_logits, draws):
            return set_prediction.set_prediction_loss(
                class_logits,
                mask_logits,
                targets,
                jnp.ones(len(frames)),
                loss_config(golden),
                draws=draws,
            )

        def objective(parameters, draws):
            outputs = network(parameters)
            return losses(outputs["class_logits"], outputs["mask_logits"], draws)

        with jax.default_matmul_precision("highest"):
            outputs = jax.jit(network, compiler_options=COMPILER)(parameters)
            logits = outputs["class_logits"], outputs["mask_logits"]
            draws = split_draws(golden, len(logits[0]), len(frames))
            matching = np.stack([draw["matching"] for draw in draws])
            assigned = jax.jit(
                lambda classes, masks: set_prediction.assignments(
                    classes, masks, targets, loss_config(golden), draws={"matching": matching}
                ),
                compiler_options=COMPILER,
            )
            query = np.asarray(assigned(*logits))
            present = np.asarray(targets.present)
            draws = {"matching": matching} | {
                name: np.stack(
                    [
                        into_slots(draw[name], q, present)
                        for draw, q in zip(draws, query, strict=True)
                    ]
                )
                for name in ("candidates", "fresh")
            }
            loss, terms = jax.jit(losses, compiler_options=COMPILER)(*logits, draws)
            size = golden["post/scores"].shape[2:]
            scores = mask_classification.class_scores(
                outputs["class_logits"][-1], outputs["mask_logits"][-1], READOUT_FRAME, size
            )

        def differentiate():
            gradient = jax.jit(jax.grad(objective, has_aux=True), compiler_options=COMPILER)
            with jax.default_matmul_precision("highest"):
                return gradient(parameters, draws)[0]

        return types.SimpleNamespace(
            golden=golden,
            given=given,
            wanted=wanted,
            outputs=outputs,
            loss=loss,
            terms=terms,
            scores=scores,
            differentiate=differentiate,
        )

    @pytest.fixture(scope="class")
    @classmethod
    def gradients(cls, replay, checkpoint_names):
        """By the file's names; of one file in every test run, of all with -m slow."""
        names = [str(name) for name in replay.golden["grad_names"]]
        return checkpoint_names.to_checkpoint(by_path(replay.differentiate()), names)

    def test_every_name_has_its_place(self, replay):
        ours = {path for path in replay.wanted if not path.startswith("audio_encoder/")}
        assert set(replay.given) == ours
        misfits = {
            path: (array.shape, replay.wanted[path].shape)
            for path, array in replay.given.items()
            if array.shape != replay.wanted[path].shape
        }
        assert not misfits

    def test_features(self, replay):
        check(
            [
                (f"tap/{part}/{index}", channels_first(x), replay.golden[f"tap/{part}/{index}"])
                for part in ("backbone", "multi_scale")
                for index, x in enumerate(replay.outputs[part])
            ]
            + [
                (
                    "tap/mask_features",
                    channels_first(replay.outputs["mask_features"]),
                    replay.golden["tap/mask_features"],
                )
            ],
            ACTIVATIONS,
        )

    def test_predictions(self, replay):
        pairs = []
        for output in ("class_logits", "mask_logits"):
            *auxiliary, last = replay.outputs[output]
            assert f"tap/layer/{len(auxiliary)}/{output}" not in replay.golden
            pairs.append((output, last, replay.golden[output]))
            for index, ours in enumerate(auxiliary):
                name = f"tap/layer/{index}/{output}"
                pairs.append((name, ours, replay.golden[name]))
        check(pairs, ACTIVATIONS)

    def test_readout(self, replay):
        scores = replay.golden["post/scores"]
        check([("post/scores", channels_first(replay.scores), scores)], ACTIVATIONS)
        if "post/semantic" in replay.golden:
            semantic = np.asarray(mask_classification.semantic_prediction(replay.scores))
            np.testing.assert_array_equal(semantic, replay.golden["post/semantic"])

    def test_losses(self, replay):
        pairs = [("loss", replay.loss, replay.golden["loss"])]
        names = {"loss_cross_entropy": "class", "loss_mask": "mask", "loss_dice": "dice"}
        for key, golden in replay.golden.items():
            match = re.fullmatch(r"loss/(loss_[a-z_]+?)(?:_(\d+))?", key)
            if match:
                prediction = -1 if match[2] is None else int(match[2])
                pairs.append((key, replay.terms[names[match[1]]][prediction], golden))
        assert len(pairs) == 1 + 3 * len(replay.terms["class"])
        check(pairs, LOSSES)

    def test_gradients(self, replay, gradients):
        check(
            [
                (name, gradients[name[5:]], golden)
                for name, golden in replay.golden.items()
                if name.startswith("grad/")
            ],
            GRADIENTS,
        )

    def test_gradient_norms(self, replay, gradients):
        sizes = json.loads(str(replay.golden["config_json"]))
        vanishing = [r".*attention\.self\.key\.bias", r".*decoder\.layers.*self_attn\.k_proj\.bias"]
        if (
            sizes["feature_size"] == 32
        ):  # one channel per group: GroupNorm takes out what is constant
            vanishing += [r".*input_projections\.\d\.0\.bias", r".*hidden_states_norms\..*\.bias"]
        unused = r".*self_attn\.out(put)?_proj\..*" if sizes["task"] == "avs" else "-"
        pairs, not_zero, unused_found = [], {}, 0
        for name, golden in zip(
            replay.golden["grad_names"], replay.golden["grad_norms"], strict=True
        ):
            norm = np.linalg.norm(gradients[str(name)].astype(np.float64))
            if re.fullmatch(unused, name):
                unused_found += 1
                if norm != 0:
                    not_zero[str(name)] = norm
            elif any(re.fullmatch(pattern, name) for pattern in vanishing):
                if not norm < VANISHING:
                    not_zero[str(name)] = norm
            else:
                pairs.append((str(name), norm, golden))
        assert not not_zero
        if sizes["task"] == "avs":
            layers = sizes["encoder_layers"] + sizes["decoder_layers"] - 1
            assert unused_found == 2 * layers
        check(pairs, GRADIENTS)
