"""Weights that people bring and no network here takes: told by their names, said in one sentence.

Like the tables, this is data: (title, what its names have).
"""

import re
from collections.abc import Iterable

# (what it is, regular expressions that must each be found in some name).
# These have a Swin or a VGGish of their own inside: they are looked for before the formats.
WITH_KNOWN_PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "a detectron2 or mmsegmentation network (such as COMBO or the original Mask2Former)",
        (r"(^|\.)(sem_seg_head|decode_head|panoptic_head)\.",),
    ),
    ("MaskFormer, the network before Mask2Former", (r"level_module\.decoder\.fpn\.",)),
    ("OneFormer", (r"(^|\.)task_encoder\.",)),
    (
        "a Mask2Former with another backbone than Swin",
        (r"level_module\.encoder\.(model\.)?(embedder|resnet|encoder\.stages)\.",),
    ),
    (
        "Swin V2, whose attention is another",
        (r"(^|\.)(logit_scale|cpb_mlp|continuous_position_bias_mlp)(\.|$)",),
    ),
)
# These are looked for where no format fits.
OTHERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("EASE, saved by PyTorch Lightning", (r"^network\.",)),
    ("SAM", (r"(^|\.)(sam_)?mask_decoder\.",)),
    ("torchvision's Swin", (r"^features\.1\.0\.attn\.qkv\.",)),
    (
        "a pyramid vision transformer that is no PVT-v2",
        (r"(^|\.)patch_embed1\.", r"(^|\.)block1\.0\."),
    ),
    ("a plain vision transformer", (r"(^|\.)(cls_token|class_token)$",)),
    (
        "the PCA of VGGish's post-processing alone",
        (r"^(pproc\.)?pca_(eigen_vectors|matrix)$", r"^(pproc\.)?pca_means$"),
    ),
)


def stranger(names: Iterable[str], known: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    """What these names belong to, of WITH_KNOWN_PARTS or OTHERS; '' if to none."""
    names = list(names)
    for title, expressions in known:
        if all(any(re.search(e, name) for name in names) for e in expressions):
            return title
    return ""
