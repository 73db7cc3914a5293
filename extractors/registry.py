"""The one table of extractors: name -> class, and the extra that installs what it imports; and that of doors to other libraries' models."""

from __future__ import annotations

import importlib
import importlib.util
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


# "door:model" -> a function that makes the extractor class of that model of another library.
DOORS: dict[str, Entry] = {
    "timm": Entry("extractors.visual.timm_model:timm_model", "hub"),
    "hf": Entry("extractors.visual.hf_model:hf_model", "hub"),
    "hf_audio": Entry("extractors.audio.hf_audio:hf_audio", "hub"),
}


def behind_door(use: str) -> tuple[str, str] | None:
    """The door and the model that `use` names, or None where it names no door."""
    door, colon, model = use.partition(":")
    return (door, model) if colon and door in DOORS else None


def require(package: str) -> None:
    """Raises ModuleNotFoundError where the package is not installed. Called at the head of a module that needs it only when it builds a
    model, so that `load` names the extra to install before anything runs. It is not imported: that takes seconds."""
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def load(use: str) -> Any:
    """The extractor class that `use` names: a name of the table, a "door:model", or an outside "package.module:Class".

    Raises ExtractorError when it cannot be imported or is not there. (The type is Any: the Protocols of the contract say what
    each kind offers, and the pipeline checks the kind before it calls.)
    """
    if opened := behind_door(use):
        door, model = opened
        return _imported(use, DOORS[door].target, DOORS[door].extra)(model)
    entry = EXTRACTORS.get(use)
    return _imported(use, entry.target, entry.extra) if entry else _imported(use, use, None)


def _imported(use: str, target: str, extra: str | None) -> Any:
    """What stands in the module after the colon. extra: of affectpipe, that installs what the module imports; None for an outside one."""
    module_name, _, name = target.partition(":")
    fix = f"pip install 'affectpipe[{extra}]'" if extra else f"install the package that holds {module_name}, or mend its name"
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ExtractorError(f"extractor {use!r} cannot be imported", why=str(error), fix=fix) from error
    except Exception as error:  # an outside module may raise anything while it is imported
        why = f"{type(error).__name__}: {error}"
        raise ExtractorError(f"extractor {use!r} cannot be imported", why=why, fix=f"mend {module_name}") from error
    if not hasattr(module, name):
        raise ExtractorError(f"extractor {use!r} is not there", why=f"{module_name} has no {name!r}", fix="mend the name after the colon")
    return getattr(module, name)
