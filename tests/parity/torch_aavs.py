"""AAVS in PyTorch: the Mask2Former of PyPI's transformers, with AAVS's additions hooked in.

Everything a plain Mask2Former computes is transformers' own code, loss included. What AAVS adds is
written here, in a few lines each, from its definition: adapters, audio queries, and for the
semantic network mask fusion, audio-aware keys and the prior as first mask. Weights are random and
none is left at zero or one, so that every one of them counts.

Two things differ from AAVS in a stock Mask2Former and are set here: its matching weighs the class
cost like the class loss (2; AAVS: 1), and its self-attention and deformable attention end with an
output projection (AAVS: replaced by, or followed by, an adapter).
"""

import re
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file
from torch.nn import functional

MODULE = "model.model.transformer_module."
ENCODER = "model.model.pixel_level_module.encoder."
UNUSED = "pixel_level_module.encoder.swin.layernorm"  # of transformers, since 5.0
EMBEDDING = 128  # width of an audio embedding
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def randomise(module: torch.nn.Module, *, few_digits: bool) -> None:
    """Draws every weight: features keep their size from layer to layer, and none is zero or one."""
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape)
            if parameter.ndim > 1:
                parameter.copy_(noise * (parameter.numel() / len(parameter)) ** -0.5)
            else:
                parameter += 0.2 * noise
            if few_digits:
                parameter.copy_(parameter.half())


def give_queries_something_to_do(
    model: transformers.Mask2FormerForUniversalSegmentation,
    pixels: np.ndarray,
    ends: list[torch.nn.Linear],
    prior: float = 0.0,
) -> None:
    """Random weights as they come make all queries alike, and their masks all or nothing.

    Nothing would then be seen of a query taken for another, nor of the masks' part in attention.
    So queries are made to start as far from each other as published ones do, attentions to add
    less to them, and mask features to vary about zero.

    Args:
      model: changed in place.
      pixels: float32 [N,3,H,W], what it will see.
      ends: the last layers of the decoder's self-attentions.
      prior: mean of what is added to the mask features.
    """
    module, level = model.model.transformer_module, model.eval().model.pixel_level_module
    with torch.no_grad():
        for embedding in (module.queries_embedder, module.queries_features):
            embedding.weight.normal_()
        for end in (*ends, *(layer.cross_attn.out_proj for layer in module.decoder.layers)):
            end.weight *= 0.3
        mask_features = level(torch.from_numpy(pixels)).decoder_last_hidden_state
        level.decoder.mask_projection.bias -= mask_features.mean((0, 2, 3)) + prior


class TorchAAVS:
    """The reference network."""

    def __init__(self, sizes: dict, *, seed: int, audio_hidden: int = 16, dtype=torch.float64):
        """`sizes` is what a golden file's `config_json` holds.

        In double precision weights get few digits, so that files with them compress well; in
        single precision all that they can have, as in a checkpoint.
        """
        torch.manual_seed(seed)
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

        self.to(dtype)
        for module in (self.plain, *self.added.values()):
            randomise(module, few_digits=dtype == torch.float64)

    def to(self, dtype: torch.dtype) -> None:
        """Computes in this type from here on."""
        self.dtype = dtype
        for module in (self.plain, *self.added.values()):
            module.to(dtype)

    # -------------------------------------------------------------------------- what is added

    def _adapt(self, name: str, module: torch.nn.Module) -> None:
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

    def _adapter(self, name: str, size: int) -> torch.nn.Module:
        self.added[name] = torch.nn.Sequential(
            torch.nn.Linear(size, size // 4), torch.nn.ReLU(), torch.nn.Linear(size // 4, size)
        )
        return self.added[name]

    def _prior_at(self, size) -> torch.Tensor:
        return functional.interpolate(self.prior[:, None], size=tuple(size), mode="bilinear")

    def _before_decoder(self, module, args, kwargs):
        audio = self.added["audio_proj"](self.audio)
        positions = kwargs["query_position_embeddings"]  # queries first, then frames
        similarity = functional.cosine_similarity(positions, audio[None], dim=-1)
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

    def __call__(self, pixel_values, audio, prior=None):
        """transformers' outputs, with everything in between and all predictions.

        Arrays [N,3,H,W], [N,128] and for the semantic network [N,G,G'] in [0,1].
        """
        self.audio = torch.from_numpy(audio).to(self.dtype)
        self.prior = None if prior is None else torch.from_numpy(prior).to(self.dtype)
        return self.plain(
            torch.from_numpy(pixel_values).to(self.dtype),
            output_hidden_states=True,
            output_auxiliary_logits=True,
        )

    def losses(self, outputs, segmentation: np.ndarray) -> tuple[dict, list[np.ndarray]]:
        """transformers' weighted losses for label maps [N,H,W], and the random numbers drawn."""
        classes = [torch.from_numpy(np.unique(labels)).long() for labels in segmentation]
        masks = [
            (torch.from_numpy(labels)[None] == present[:, None, None]).double()
            for labels, present in zip(segmentation, classes, strict=True)
        ]
        draws, rand = [], torch.rand

        def recorded(*shape, **options):
            draws.append(rand(*shape, dtype=torch.float32))
            return draws[-1].double()

        torch.rand = recorded
        try:
            losses = self.plain.get_loss_dict(
                outputs.masks_queries_logits,
                outputs.class_queries_logits,
                masks,
                classes,
                outputs.auxiliary_logits,
            )
        finally:
            torch.rand = rand
        return losses, [draw.numpy() for draw in draws]

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

    def published(self) -> dict[str, torch.Tensor]:
        """What the public code's `torch.save(model.state_dict())` holds: buffers, too.

        The transformers of its time kept the table of relative positions as a buffer of every
        block, which that of today computes, and had no last norm, which today nothing uses.
        """
        tensors = {
            name: torch.from_numpy(array)
            for name, array in self.checkpoint().items()
            if UNUSED not in name
        }
        for name, buffer in self.plain.named_buffers():
            block = re.search(r"layers\.\d+\.blocks\.\d+\.attention", name)
            if block:
                place = f"{ENCODER}encoder.{block[0]}.self.relative_position_index"
            else:
                place = f"model.{name}"
            tensors[place] = buffer.clone()
        return tensors

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Takes over what `published` gives: every weight must be there, and nothing else."""
        rest = dict(tensors)
        for prefix, module in self.added.items():
            own = {name: rest.pop(f"{prefix}.{name}") for name in module.state_dict()}
            module.load_state_dict(own, strict=True)
        plain, report = type(self.plain).from_pretrained(
            None,
            config=self.plain.config,
            state_dict={
                name.removeprefix("model."): tensor
                for name, tensor in rest.items()
                if not name.endswith(".relative_position_index")
            },
            output_loading_info=True,
        )
        misfits = [(what, name) for what, names in report.items() for name in names]
        misfits = [(what, name) for what, name in misfits if UNUSED not in name]
        if misfits:
            raise ValueError(misfits)
        self.plain.load_state_dict(plain.state_dict(), strict=True)
