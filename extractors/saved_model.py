"""A model as Hugging Face's libraries save it: what its folder says, read without running anything that is in it.

Nothing is read but the files of `extractors.weights.FOLDER_FILES`, whose digests are in the key of all that the model gives.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extractors.contract import ExtractorError, Runtime
from extractors.registry import require
from extractors.weights import FOLDER_FILES

if TYPE_CHECKING:
    from torch import nn

require("transformers")

CONFIG, PREPROCESSOR = FOLDER_FILES[:2]
# The plain form of attention, whatever is installed or set: others differ in rounding, and not every model has them.
ATTENTION = "eager"


def weights_of(extractor: str, runtime: Runtime) -> Path:
    """Where the weights lie: a file or a folder. Raises ValueError where none are named."""
    if runtime.weights is None:
        raise ValueError(f"{extractor}: expected a saved model's folder, got none")
    return runtime.weights


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """One of the folder's files. Raises ExtractorError where it is not there or is no JSON object."""
    path = folder / name
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = f"{name} cannot be read ({error})"
        raise refused(folder, why, f"fetch the model's {name} into the same folder") from error
    if not isinstance(content, dict):
        raise refused(folder, f"{name} holds no JSON object", "fetch it again")
    return content


def read_config(folder: Path) -> Any:
    """The transformers configuration that config.json gives. Raises ExtractorError where transformers has no such model."""
    return configuration(read_json(folder, CONFIG), folder)


def configuration(values: dict[str, Any], folder: Path) -> Any:
    """A transformers configuration of config.json's values. The class is transformers' own, whatever code the folder names."""
    from transformers import AutoConfig

    own = {key: value for key, value in values.items() if key not in ("model_type", "auto_map")}
    try:
        config = AutoConfig.for_model(values.get("model_type", "missing"), **own)
    except Exception as error:  # the classes check their values with errors of their own
        why = f"transformers cannot read {CONFIG} ({type(error).__name__}: {_line(error)})"
        raise refused(folder, why, "give the folder of a model that transformers has a class for") from error
    # SpecAugment is for training; without it there is no masked_spec_embed, which some files lack.
    for name in ("mask_time_prob", "mask_feature_prob"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def reads_normalised(folder: Path, rate_hz: int) -> bool:
    """Whether preprocessor_config.json asks for sound of zero mean and unit variance. Raises ExtractorError on another rate."""
    values = read_json(folder, PREPROCESSOR)
    if (asked := values.get("sampling_rate", rate_hz)) != rate_hz:
        raise refused(folder, f"{PREPROCESSOR} asks for {asked} Hz", f"give a model for sound at {rate_hz} Hz")
    return bool(values.get("do_normalize", True))


def build(config: Any) -> nn.Module:
    """The configuration's network, untrained, on torch's current default device. Raises ValueError where it has none."""
    from transformers import AutoModel

    auto: Any = AutoModel  # this, like logging below, has no types
    network: nn.Module = auto.from_config(config, attn_implementation=ATTENTION, trust_remote_code=False)
    return network


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers draws a bar, and prints a table of what does not fit, which is said better where that is checked."""
    import transformers

    logging: Any = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def filled(from_pretrained: Any, config: Any, state: Any) -> tuple[Any, dict[str, Any]]:
    """transformers' own loading of tensors that are given: the model in float32 and eval mode, and what was missing or left over.

    It renames tensors of older versions.
    """
    import torch

    form: dict[str, Any] = {"attn_implementation": ATTENTION, "dtype": torch.float32, "output_loading_info": True}
    with quiet():
        model, found = from_pretrained(None, config=config, state_dict=state, **form)
    return model, found


def refused(path: Path, why: str, fix: str) -> ExtractorError:
    return ExtractorError(f"model {path} cannot be used", why=why, fix=fix)


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[-1] if lines else "no reason given").strip()[:200]
