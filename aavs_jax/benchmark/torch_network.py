"""AAVS in plain PyTorch: the Mask2Former of PyPI's transformers, with AAVS's additions hooked in.

Everything a plain Mask2Former computes is transformers' own code, loss included. What AAVS adds is
written here, in a few lines each, from its definition: adapters, audio queries, and for the
semantic network mask fusion, audio-aware keys and the prior as first mask. The parity tests hold
the network in JAX against this one.

Two things differ from AAVS in a stock Mask2Former and are set here: its matching weighs the class
cost like the class loss (2; AAVS: 1), and its self-attention and deformable attention end with an
output projection (AAVS: replaced by, or followed by, an adapter).
"""

import re
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load_file

MODULE = "model.model.transformer_module."
ENCODER = "model.model.pixel_level_module.encoder."
UNUSED = "pixel_level_module.encoder.swin.layernorm"  # of transformers, since 5.0
EMBEDDING = 128  # width of an audio embedding
STAGES = ["stage1", "stage2", "stage3", "stage4"]


class TorchAAVS:
    """The network, with the first values that PyTorch and transformers give."""

    def __init__(self, sizes: Mapping[str, Any], *, audio_hidden: int):
        """Makes it.

        Args:
          sizes: `task`, "avs" (binary) or "avss" (semantic); `swin`, arguments of transformers'
            SwinConfig; `num_classes`; the others are arguments of its Mask2FormerConfig.
          audio_hidden: width of the hidden layer of the audio MLP.
        """
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        self.semantic = sizes["task"] == "avss"
        backbone = transformers.SwinConfig(**sizes["swin"], drop_path_rate=0.0, out_features=STAGES)
        known = set(sizes) - {"swin", "task", "num_classes"}
        self.plain = transformers.Mask2FormerForUniversalSegmentation(
            transformers.Mask2FormerConfig(
                **{name: sizes[name] for name in known},
                num_labels=sizes["num_classes"],
                backbone_config=backbone,
            )
        ).eval()
        self.plain.criterion.matcher.cost_class = 1.0
        self.decoder = self.plain.model.transformer_module.decoder
        self.heads = sizes["num_attention_heads"]
        size = sizes["feature_size"]

        # AAVS's own modules, by their names in a checkpoint.
        self.added = {
            "audio_proj": torch.nn.Sequential(
                torch.nn.Linear(EMBEDDING, audio_hidden),
                torch.nn.ReLU(),
                torch.nn.Linear(audio_hidden, size),
            )
        }
        if self.semantic:
            for state in ("silence", "audio", "uncertain"):
                self.added[f"{MODULE}{state}_embed"] = torch.nn.Embedding(1, size)
        for name, module in self.plain.named_modules():
            self._adapt(name, module)
        self.decoder.register_forward_pre_hook(self._before_decoder, with_kwargs=True)
        self.decoder.mask_predictor.register_forward_hook(self._after_mask_prediction)

    # -------------------------------------------------------------------------- what is added

    def _adapt(self, name: str, module: Any) -> None:
        block = re.fullmatch(
            r".*\.encoder\.layers\.(\d+)\.blocks\.(\d+)\.(attention\.o_proj|mlp\.fc2)", name
        )
        ends = re.fullmatch(r"(.*\.self_attn)\.(out_proj|output_proj)", name)
        if block:
            stage, index, part = block.groups()
            place = (
                "attention.output.swin_adapt_1" if "attention" in part else "output.swin_adapt_3"
            )
            adapter = self._adapter(
                f"{ENCODER}encoder.layers.{stage}.blocks.{index}.{place}", module.out_features
            )
            module.register_forward_hook(lambda _, inputs, output: output + adapter(output))
        elif ends:
            adapter = self._adapter(f"model.{ends[1]}.avs_adapt", module.out_features)
            if self.semantic:
                module.register_forward_hook(lambda _, inputs, output: adapter(output))
            else:
                module.register_forward_hook(lambda _, inputs, output: adapter(*inputs))

    def _adapter(self, name: str, size: int) -> Any:
        import torch

        self.added[name] = torch.nn.Sequential(
            torch.nn.Linear(size, size // 4), torch.nn.ReLU(), torch.nn.Linear(size // 4, size)
        )
        return self.added[name]

    def _prior_at(self, size) -> Any:
        from torch.nn import functional

        return functional.interpolate(self.prior[:, None], size=tuple(size), mode="bilinear")

    def _before_decoder(self, module, args, kwargs):
        import torch

        audio = self.added["audio_proj"](self.audio)
        positions = kwargs["query_position_embeddings"]  # queries first, then frames
        similarity = torch.nn.functional.cosine_similarity(positions, audio[None], dim=-1)
        kwargs["inputs_embeds"] = kwargs["inputs_embeds"] + similarity[..., None] * audio
        if self.semantic:
            mask_features = kwargs["pixel_embeddings"]
            kwargs["pixel_embeddings"] = mask_features + self._prior_at(mask_features.shape[2:])
            silence, sounding, uncertain = (
                self.added[f"{MODULE}{state}_embed"].weight[0]
                for state in ("silence", "audio", "uncertain")
            )
            keys = []
            for position, size in zip(
                kwargs["multi_stage_positional_embeddings"],
                kwargs["feature_size_list"],
                strict=True,
            ):
                prior = self._prior_at(size).flatten(1).T[..., None]  # pixels first, then frames
                known = torch.where(prior >= 0.6, sounding, uncertain)
                keys.append(position + torch.where(prior <= 0.4, silence, known))
            kwargs["multi_stage_positional_embeddings"] = keys
            self.first_mask = True
        return args, kwargs

    def _after_mask_prediction(self, module, inputs, output):
        if not self.semantic or not self.first_mask:
            return None
        self.first_mask = False
        masks, blocked = output
        prior = self._prior_at(inputs[2]).flatten(1) < 0.5
        return masks, prior.repeat_interleave(self.heads, 0)[:, None].expand_as(blocked)

    # ---------------------------------------------------------------------------------- running

    def forward(self, pixels: Any, audio: Any, prior: Any = None, **asked: bool) -> Any:
        """transformers' outputs.

        Args:
          pixels: tensor [N,3,H,W], normalised.
          audio: tensor [N,128].
          prior: for the semantic network a tensor [N,G,G'] in [0,1].
          asked: `output_auxiliary_logits`, of all predictions, and the like.
        """
        self.audio, self.prior = audio, prior
        return self.plain(pixels, **asked)

    def checkpoint(self, tensor=lambda parameter: parameter.detach()) -> dict[str, np.ndarray]:
        """Its weights, or another tensor of each, under the names of an AAVS checkpoint.

        transformers names modules otherwise in memory than in its files; only files are asked.
        """
        state = {name: tensor(p).contiguous() for name, p in self.plain.named_parameters()}
        with tempfile.TemporaryDirectory() as folder:
            self.plain.save_pretrained(folder, state_dict=state)
            tensors = load_file(f"{folder}/model.safetensors")
        named = {"model." + name: array for name, array in tensors.items()}
        for prefix, module in self.added.items():
            for name, parameter in module.named_parameters():
                named[f"{prefix}.{name}"] = tensor(parameter).numpy()
        return {name: array.astype(np.float32) for name, array in named.items()}
