"""The one table of extractors: name -> class, and the extra that installs what it imports."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from extractors.contract import ExtractorError


@dataclass(frozen=True, slots=True)
class Entry:
    target: str  # "module:Class"
    extra: str  # pip install "affectpipe[extra]"


EXTRACTORS: dict[str, Entry] = {
    "timeline": Entry("extractors.timeline:Timeline", "extract"),
    "waveform": Entry("extractors.audio.waveform:WaveformConditioner", "extract"),
    "mtcnn": Entry("extractors.face.mtcnn:Mtcnn", "extract"),
    "folder": Entry("extractors.face.folder:Folder", "extract"),
    "onet": Entry("extractors.visual.onet:ONet", "extract"),
    "iresnet18": Entry("extractors.visual.iresnet:IResNet18", "extract"),
    "iresnet34": Entry("extractors.visual.iresnet:IResNet34", "extract"),
    "iresnet50": Entry("extractors.visual.iresnet:IResNet50", "extract"),
    "iresnet100": Entry("extractors.visual.iresnet:IResNet100", "extract"),
    "ir50": Entry("extractors.visual.ir50:Ir50", "extract"),
    "dan": Entry("extractors.visual.dan:Dan", "extract"),
    "resnet18": Entry("extractors.visual.resnet18:ResNet18", "extract"),
    "efficientnet_b0": Entry("extractors.visual.efficientnet:EfficientNetB0", "hub"),
    "efficientnet_b2": Entry("extractors.visual.efficientnet:EfficientNetB2", "hub"),
    "regnet_y": Entry("extractors.visual.regnet_y:RegNetY", "extract"),
    "dino_vit": Entry("extractors.visual.dino_vit:DinoVit", "hub"),
    "openface": Entry("extractors.visual.openface:OpenFace", "extract"),
    "r3d18": Entry("extractors.visual.video_resnet:R3d18", "extract"),
    "r2plus1d18": Entry("extractors.visual.video_resnet:R2plus1d18", "extract"),
    "spectrogram_resnet18": Entry("extractors.audio.spectrogram_resnet18:SpectrogramResnet18", "extract"),
    "vggish": Entry("extractors.audio.vggish:Vggish", "extract"),
    "logmel": Entry("extractors.audio.logmel:LogMel", "extract"),
    "mfcc39": Entry("extractors.audio.mfcc39:Mfcc39", "extract"),
    "wav2vec2": Entry("extractors.audio.wav2vec2:Wav2Vec2", "hub"),
    "wav2vec2_emotion": Entry("extractors.audio.wav2vec2_emotion:Wav2Vec2Emotion", "hub"),
    "egemaps_lld": Entry("extractors.audio.egemaps:EgemapsLld", "opensmile"),
    "egemaps_functionals": Entry("extractors.audio.egemaps:EgemapsFunctionals", "opensmile"),
    "compare_lld": Entry("extractors.audio.compare:CompareLld", "opensmile"),
}


def load(use: str) -> Any:
    """The extractor class that `use` names: a name of the table, or an outside "package.module:Class".

    Raises ExtractorError when it cannot be imported or is not there. (The type is Any: the Protocols of the contract say what
    each kind offers, and the pipeline checks the kind before it calls.)
    """
    entry = EXTRACTORS.get(use)
    module_name, _, class_name = (entry.target if entry else use).partition(":")
    extra = f"pip install 'affectpipe[{entry.extra}]'" if entry else f"install the package that holds {module_name}, or mend its name"
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ExtractorError(f"extractor {use!r} cannot be imported", why=str(error), fix=extra) from error
    except Exception as error:  # an outside module may raise anything while it is imported
        why = f"{type(error).__name__}: {error}"
        raise ExtractorError(f"extractor {use!r} cannot be imported", why=why, fix=f"mend {module_name}") from error
    if not hasattr(module, class_name):
        why = f"{module_name} has no {class_name!r}"
        raise ExtractorError(f"extractor {use!r} is not there", why=why, fix="mend the name after the colon")
    return getattr(module, class_name)
