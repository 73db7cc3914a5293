"""Weight files: finding one by name, reading it without running anything that is in it, and loading it strictly.

A look-alike checkpoint that loads with half its keys left out computes something else without a word, so nothing here is
ever loaded with `strict=False`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extractors.contract import ExtractorError
from extractors.protocols import Extractor

if TYPE_CHECKING:
    from torch import Tensor, nn

# Names under which training scripts keep the network's state beside optimiser state and counters.
WRAPPERS = ("state_dict", "model_state_dict", "state_dict_backbone", "net", "model", "teacher")
# Prefixes that wrappers such as DataParallel put before every key.
PREFIXES = ("module.", "backbone.", "model.", "encoder.")
# Beginnings of the names that classifiers have which were put behind a network to fine-tune it.
HEADS = ("classifier.", "head.", "logits.", "fc_cls.")
SHOWN = 4  # of a list of keys, how many an error names
# What is read of a folder as Hugging Face's libraries save a model; the first is what makes it one.
FOLDER_FILES = ("config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin")
FOLDER_TENSORS = FOLDER_FILES[2:]  # the first that is there holds the tensors

State = dict[str, "Tensor"]


def as_published(state: State) -> State:
    return state


def any_module(module: Any) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the published files of a network differ from its own state dict, beside the wrappers and prefixes above.

    classes: "module.Class" of the objects that a pickle may hold beside tensors, such as the modules of a whole pickled network; without
    any, no such pickle is opened. The classes need not be installed and none of their code is run: a bare nn.Module stands for each.
    converted: from the published names (and shapes) to the network's own; it may raise ValueError with the reason where it
    cannot, and LookupError where it looks for what the file does not have.
    unlike: why a pickled module is not the network though its tensors fit, "" where it is: it says more of itself than its tensors do.
    dropped: beginnings of names, after that, of tensors for other purposes (a classifier that is not used), which may be there or not.
    files: what is read of a folder, where the weights may be one; the first is what makes it one.
    """

    classes: tuple[str, ...] = ()
    converted: Callable[[State], State] = as_published
    unlike: Callable[[Any], str] = any_module
    dropped: tuple[str, ...] = ()
    files: tuple[str, ...] = FOLDER_FILES


PLAIN = Layout()


def find(name: str, folders: Iterable[Path], files: Sequence[str] = FOLDER_FILES) -> Path | None:
    """The first of the folders' files called `name`, or folders of a model that is saved as `files`, or None.

    Raises ExtractorError when `name` is not a bare file name: a stages file must not reach outside the weights folders.
    """
    if not name or name in (".", "..") or any(c in name for c in "/\\\0"):
        why = "it must be a bare file name, without a folder"
        raise ExtractorError(f"weights {name!r}", why=why, fix="put the file into a weights folder and give its name only")
    found = (folder / name for folder in folders)
    return next((path for path in found if path.is_file() or (path / files[0]).is_file()), None)


def describe_missing(extractor: type[Extractor], name: str, folders: Sequence[Path]) -> str:
    """One line for a report of missing weight files: which, from where, under which terms, and where to put it."""
    places = " or ".join(map(str, folders)) or "a weights folder (none is named)"
    return f"{extractor.name}: {name} is missing; origin: {extractor.origin}; licence: {extractor.licence}; put it into {places}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A checkpoint's tensors. wrapper: the key under which they lay; module: what held them, where that was pickled whole."""

    state: State
    wrapper: str = ""
    module: Any = None

    @property
    def pickled(self) -> str:
        """The class of the module, "" where there was none."""
        return "" if self.module is None else type(self.module).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a checkpoint was read, and what keeps it from fitting a network of n_own tensors.

    prefixes: taken off every name, in this order. converted: the layout gave other names or shapes. dropped: tensors for other purposes.
    refused: why the layout could not convert it; the lists below are empty then. unlike: names with the shape found and expected.
    """

    network: str
    n_own: int
    wrapper: str = ""
    pickled: str = ""
    prefixes: tuple[str, ...] = ()
    converted: bool = False
    dropped: tuple[str, ...] = ()
    refused: str = ""
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """What does not fit, in words; empty where all does."""
        found = ((self.missing, "missing"), (self.unexpected, "unexpected"), (self.unlike, "of another shape"))
        problems = [f"{len(keys)} {what} ({_listed(keys)})" for keys, what in found if keys]
        return self.refused or (f"of {self.n_own} tensors, " + ", ".join(problems) if problems else "")


def read_content(path: Path, classes: Sequence[str] = ()) -> Content:
    """A checkpoint's tensors on the CPU, without what training scripts wrap around them.

    The kind of file (safetensors, or what torch.save writes) is told by its content; of a saved model's folder it is the first of
    `FOLDER_TENSORS`. Raises ExtractorError naming the file, why, and what to do; a pickle that holds anything but tensors, plain containers
    and objects of the named classes is refused, and nothing in it is executed.
    """
    from torch import Tensor, nn

    content, module = _read(path, classes), None
    if isinstance(content, nn.Module):
        content, module = content.state_dict(), content
    if not isinstance(content, Mapping):
        raise _refused(path, f"it holds a {type(content).__name__}", "give a file that holds the network's state dict")
    wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), "")
    state = content[wrapper] if wrapper else content
    foreign = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if not state or foreign:
        why = f"of its {len(state)} entries {len(foreign)} are no tensors ({_listed(foreign)})" if foreign else "it holds nothing"
        raise _refused(path, why, "give a file that holds the network's state dict")
    return Content(state={str(key): value for key, value in state.items()}, wrapper=wrapper, module=module)


def load_state(path: Path, expected: Collection[str] = (), classes: Sequence[str] = ()) -> State:
    """The tensors of `read_content`, their names without prefixes: those are taken off only where every key has them, and no longer once
    a key is one of `expected`."""
    return _without_prefixes(read_content(path, classes).state, expected)


def compare(network: nn.Module, content: Content, layout: Layout = PLAIN) -> tuple[Fit, State]:
    """How the content fits the network (which may be on torch's "meta" device), and its tensors under the network's own names."""
    own = network.state_dict()
    read = _without_prefixes(content.state, own.keys())
    about: dict[str, Any] = {"network": type(network).__name__, "n_own": len(own), "wrapper": content.wrapper}
    about |= {"pickled": content.pickled, "prefixes": _prefixes(content.state, own.keys())}
    if content.module is not None and (why := layout.unlike(content.module)):
        return Fit(**about, refused=why), {}
    try:
        state = layout.converted(dict(read))
    except ValueError as error:
        return Fit(**about, refused=str(error)), {}
    except LookupError as error:  # what a conversion looks for is a tensor or a dimension
        return Fit(**about, refused=f"it lacks what its layout has ({error})"), {}
    converted = {key: value.shape for key, value in state.items()} != {key: value.shape for key, value in read.items()}
    dropped = tuple(key for key in state if key not in own and key.startswith(layout.dropped or "\0"))
    state = {key: value for key, value in state.items() if key not in dropped}
    fit = Fit(
        **about,
        converted=converted,
        dropped=dropped,
        missing=tuple(key for key in own if key not in state),
        unexpected=tuple(key for key in state if key not in own),
        unlike=tuple(
            f"{key} {_form(state[key])}, expected {_shape(own[key])}" for key in own if key in state and not _fits(state[key], own[key])
        ),
    )
    return fit, state


def facts(folder: Path, name: str) -> dict[str, Any]:
    """What a JSON file of a saved model's folder says, nothing where there is none. Raises ExtractorError where it is no JSON object."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refused(path, str(error), "fetch it again") from error
    if not isinstance(said, dict):
        raise _refused(path, f"it holds a {type(said).__name__}, not an object", "fetch it again")
    return said


def load_strict(network: nn.Module, path: Path, layout: Layout = PLAIN) -> None:
    """Put the file's tensors into the network: every key, no other key but those that the layout drops, every shape.

    The tensors are assigned, not copied, so that a network made on torch's "meta" device costs no memory or time before; it is
    on the CPU and in the file's floating type after. Raises ExtractorError listing all that does not fit.
    """
    fit, state = compare(network, read_content(path, layout.classes), layout)
    if fit.why:
        raise _refused(path, fit.why, f"give the checkpoint of a {fit.network} network")
    network.load_state_dict(state, strict=True, assign=True)


def rows_of(path: Path, key: str, layout: Layout = PLAIN) -> int:
    """How many rows the file's matrix `key` has: how many classes a head was trained for differs from file to file.

    Raises ExtractorError where the file cannot be read or has no such matrix.
    """
    found = layout.converted(load_state(path, (key,), layout.classes)).get(key)
    if found is None or found.ndim != 2 or not len(found):
        why = f"it has no {key}" if found is None else f"{key} is {_form(found)}, expected a matrix"
        raise _refused(path, why, "give a checkpoint that holds the classifier too, or ask for another output")
    return len(found)


def beside(*heads: str) -> Callable[[State], State]:
    """A `Layout.converted` for files in which the network is one part and a head the other: `backbone.conv1.weight`, `fc.weight`.

    heads: beginnings of the heads' names. The prefixes that all other tensors share are taken off them. Where a head then has the
    name of one of the network's own tensors, that is the network's.
    """

    def converted(state: State) -> State:
        apart = {key: value for key, value in state.items() if key.startswith(heads)}
        return apart | _without_prefixes({key: value for key, value in state.items() if key not in apart}, ())

    return converted


def _refused(path: Path, why: str, fix: str) -> ExtractorError:
    return ExtractorError(f"weights {path} cannot be loaded", why=why, fix=fix)


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def _form(tensor: Tensor) -> str:
    kind = "float" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "integer"
    return f"{tuple(tensor.shape)} {kind}" + ("" if _is_whole(tensor) else " that is not all there: without data, sparse, NaN or infinite")


def _shape(own: Tensor) -> str:
    return f"{tuple(own.shape)} {'float' if own.is_floating_point() else 'integer'}"


def _fits(given: Tensor, own: Tensor) -> bool:
    alike = given.shape == own.shape and given.is_floating_point() == own.is_floating_point() and not given.is_complex()
    return alike and _is_whole(given)


def _is_whole(tensor: Tensor) -> bool:
    """Whether every number is there and is one. (What is not given, on the "meta" device, is only asked of a network's own.)"""
    import torch

    return tensor.layout is torch.strided and not tensor.is_meta and bool(tensor.isfinite().all())


def _read(path: Path, classes: Sequence[str]) -> Any:
    import pickle

    import torch
    from torch import nn

    path = tensor_file(path) if path.is_dir() else path
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:9] == b"{":  # a safetensors file is a length in 8 bytes and then a JSON object
            from safetensors.torch import load_file

            return load_file(path, device="cpu")
        with torch.serialization.safe_globals([_stand_in(name) for name in classes]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(content, nn.Module):
            content.state_dict()  # of a damaged one this raises, as well here as later
        return content
    except OSError as error:
        raise _refused(path, error.strerror or str(error), "check that the file is there and can be read") from error
    except pickle.UnpicklingError as error:
        why = f"it is damaged, or holds objects that would have to be executed ({_first_line(error)})"
        raise _refused(path, why, "fetch it again, or save its state_dict() alone") from error
    except ImportError as error:
        raise _refused(path, str(error), "pip install safetensors") from error
    except MemoryError:
        raise  # says nothing about the file: the next try may have room
    except Exception as error:  # a damaged file makes the readers raise almost anything: KeyError, EOFError, struct.error, ...
        raise _refused(path, f"{type(error).__name__}: {_first_line(error)}", "fetch it again: it is damaged or no checkpoint") from error


def tensor_file(folder: Path) -> Path:
    """Of a saved model's folder the file that holds its tensors. Raises ExtractorError where it has none."""
    found = next((folder / name for name in FOLDER_TENSORS if (folder / name).is_file()), None)
    if found is None:
        raise _refused(folder, f"it holds neither {' nor '.join(FOLDER_TENSORS)}", "give the folder of a saved model, with its tensors")
    return found


def _stand_in(name: str) -> type:
    """A bare module under the class's name: it holds the parameters, buffers and children, which is all that a state dict is made of.

    Not the class itself: the installed library may have moved it or changed it, and its code has no business with a file's content.
    """
    from torch import nn

    module, _, leaf = name.rpartition(".")
    return set if name == "builtins.set" else type(leaf, (nn.Module,), {"__module__": module})


def _first_line(error: Exception) -> str:
    """Readers put advice to load the file unsafely before and behind it, or a C++ stack: only the finding itself is wanted."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    said = next((line for line in lines if line.startswith("Trying to load")), lines[0])
    return (str(error).partition("WeightsUnpickler error: ")[2].strip() or said).splitlines()[0].split(". ")[0]


def _without_prefixes(state: State, expected: Collection[str]) -> State:
    length = sum(map(len, _prefixes(state, expected)))
    return {key[length:]: value for key, value in state.items()}


def _prefixes(names: Collection[str], expected: Collection[str]) -> tuple[str, ...]:
    """The prefixes that every name has, one after the other, until a name without them is one of those expected."""
    taken: list[str] = []
    while names and not any(name in expected for name in names):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
        if prefix is None:
            break
        names = [name.removeprefix(prefix) for name in names]
        taken.append(prefix)
    return tuple(taken)
