"""The catalogue of published checkpoints: which file belongs to which extractor, where it comes from, and under which terms.

Facts only: a digest stands here where the publisher's file name carries it, and an address where it is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from extractors.hub import TORCHVISION_URL, TorchvisionFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One published file, or folder of a saved model.

    file: its published name. origin: its address, or the page where it is found. sha256_prefix: the first digits of its sha256, empty
    where they are not public. params: those of the extractor that it is for, where they are not the defaults.
    """

    extractor: str
    file: str
    origin: str
    licence: str
    sha256_prefix: str = ""
    params: dict[str, Any] = field(default_factory=dict, hash=False)


ARCFACE = "the model zoo of https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch"
ARCFACE_TERMS = "non-commercial research (insightface's trained models)"
EMOTIEFF = "models/affectnet_emotions of EmotiEffLib's repository on GitHub (?raw=true)"
EMOTIEFF_TERMS = "Apache-2.0 (code); trained on VGGFace2 and AffectNet, which have terms of their own"
DAN = "Google Drive or Baidu, linked in the README of https://github.com/yaoing/DAN"
DAN_TERMS = "MIT code; weights trained on RAF-DB or AffectNet (non-commercial research)"
SPEECH = ("wav2vec2-base-960h", "wav2vec2-large-960h", "wav2vec2-large-robust", "hubert-base-ls960")
TSAV = "the zip aff2model_tntsub4 of tnt.uni-hannover.de (model2/TSAV_Sub4_544k.pth.tar)"
TSAV_TERMS = "restricted for research purposes"
TORCHVISION_TERMS = "BSD-3-Clause (torchvision)"
DINO_SIZES = ("s16", "s8", "b16", "b8")
DINO_FILES = tuple(f"dino_{name}_pretrain.pth" for name in ("deitsmall16", "deitsmall8", "vitbase16", "vitbase8"))


def _torchvision(extractor: str, file: str, **params: Any) -> Checkpoint:
    """One that torchvision's own weights name."""
    prefix = TorchvisionFile(file).sha256_prefix
    return Checkpoint(
        extractor=extractor, file=file, origin=TORCHVISION_URL + file, licence=TORCHVISION_TERMS, sha256_prefix=prefix, params=params
    )


def _saved(extractor: str, repo: str, licence: str, **params: Any) -> Checkpoint:
    """A folder with the files of a repository of Hugging Face."""
    origin = f"https://huggingface.co/{repo}"
    return Checkpoint(extractor=extractor, file=repo.rpartition("/")[2], origin=origin, licence=licence, params=params)


CHECKPOINTS: tuple[Checkpoint, ...] = (
    *(
        Checkpoint(extractor=f"iresnet{depth}", file="model.pt", origin=ARCFACE, licence=ARCFACE_TERMS)  # all sizes have this name
        for depth in (18, 34, 50, 100)
    ),
    Checkpoint(
        extractor="ir50", file="res50_ir_0.887.pth", origin="Google Drive, linked in sucv's ReadMe (ABAW2 to ABAW5)", licence="none stated"
    ),
    *(
        Checkpoint(extractor="efficientnet_b2", file=f"{name}.pt", origin=EMOTIEFF, licence=EMOTIEFF_TERMS)
        for name in ("enet_b2_8", "enet_b2_7")
    ),
    *(
        Checkpoint(extractor="efficientnet_b0", file=f"{name}.pt", origin=EMOTIEFF, licence=EMOTIEFF_TERMS)
        for name in ("enet_b0_8_best_vgaf", "enet_b0_8_best_afew", "enet_b0_8_va_mtl")
    ),
    Checkpoint(extractor="dan", file="affecnet8_epoch5_acc0.6209.pth", origin=DAN, licence=DAN_TERMS),
    Checkpoint(extractor="resnet18", file="resnet18_msceleb.pth", origin="what DAN's training starts from: " + DAN, licence="none stated"),
    _torchvision("resnet18", "resnet18-f37072fd.pth"),
    *(_saved("dino_vit", f"facebook/dino-vit{size}", "Apache-2.0", size=size) for size in DINO_SIZES),
    *(
        Checkpoint(
            extractor="dino_vit", file=file, origin="https://github.com/facebookresearch/dino", licence="Apache-2.0", params={"size": size}
        )
        for size, file in zip(DINO_SIZES, DINO_FILES, strict=True)
    ),
    _torchvision("regnet_y", "regnet_y_400mf-c65dace8.pth", size="400mf"),
    _torchvision("regnet_y", "regnet_y_400mf-e6988f5f.pth", size="400mf"),
    _torchvision("regnet_y", "regnet_y_800mf-1b27b58c.pth", size="800mf"),
    _torchvision("regnet_y", "regnet_y_800mf-58fc7688.pth", size="800mf"),
    _torchvision("regnet_y", "regnet_y_1_6gf-b11a554e.pth", size="1_6gf"),
    _torchvision("regnet_y", "regnet_y_1_6gf-0d7bc02a.pth", size="1_6gf"),
    _torchvision("regnet_y", "regnet_y_3_2gf-b5a9779c.pth", size="3_2gf"),
    _torchvision("regnet_y", "regnet_y_3_2gf-9180c971.pth", size="3_2gf"),
    _torchvision("r3d18", "r3d_18-b3b3357e.pth"),
    _torchvision("r2plus1d18", "r2plus1d_18-91a641e6.pth"),
    Checkpoint(extractor="r2plus1d18", file="TSAV_Sub4_544k.pth.tar", origin=TSAV, licence=TSAV_TERMS),
    Checkpoint(extractor="spectrogram_resnet18", file="TSAV_Sub4_544k.pth.tar", origin=TSAV, licence=TSAV_TERMS),
    Checkpoint(
        extractor="vggish",
        file="vggish-10086976.pth",
        origin="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        licence="Apache-2.0",
        sha256_prefix="10086976",
    ),
    Checkpoint(
        extractor="vggish",
        file="vggish_pca_params-970ea276.pth",
        origin="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish_pca_params-970ea276.pth",
        licence="Apache-2.0",
        sha256_prefix="970ea276",
        params={"output": "pca"},
    ),
    *(_saved("wav2vec2", f"facebook/{name}", "Apache-2.0") for name in SPEECH),
    _saved("wav2vec2", "microsoft/wavlm-base", "MIT"),
    _saved("wav2vec2_emotion", "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim", "CC BY-NC-SA 4.0"),
)
