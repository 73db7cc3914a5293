"""The digest of the code that computes: what `status` compares to find code that changed under the same version."""

from __future__ import annotations

import ast
import hashlib
import inspect
from pathlib import Path
from typing import Any

from extractors import registry
from extractors.registry import load
from pipeline.memo import StatMemo

DECODING = {"pyav": ("video", "decoder"), "ffmpeg": ("sound", "video", "decoder"), "openface": ("openface",)}
NOT_ITS_OWN = ("contract.py", "protocols.py", "registry.py")  # every extractor imports the first two; the last names them all


def code_digest(use: str, memo: StatMemo | None = None) -> str:
    """sha256 over the extractor's module, what it imports of the package `extractors`, and what decodes for it.

    Comments and blank lines do not count. memo: remembers each file's part, which saves parsing it again.
    """
    extractor = load(use)
    module = inspect.getsourcefile(extractor)
    if module is None:
        return ""
    decoding = [Path(__file__).with_name(f"{name}.py") for name in DECODING.get(extractor.decoder, ())]
    parts = {path: _part(path, memo)[0] for path in decoding}
    pending = [Path(module)]
    while pending:
        path = pending.pop()
        if path not in parts:
            parts[path], imported = _part(path, memo)
            pending += map(Path, imported)
    return hashlib.sha256("\n".join(sorted(parts.values())).encode()).hexdigest()


def _part(path: Path, memo: StatMemo | None) -> tuple[str, list[str]]:
    """The digest of one file's syntax tree, and the files of `extractors` that it imports."""
    name, stat = f"code:{path}", path.stat()
    known = memo.get(name, stat) if memo is not None else None
    if known is None:
        tree = ast.parse(path.read_bytes(), str(path))
        known = [hashlib.sha256(_canonical(tree).encode()).hexdigest(), _imported(tree)]
        if memo is not None:
            memo.put(name, stat, known)
    return known[0], known[1]


def _imported(tree: ast.Module) -> list[str]:
    """Imports inside functions count too."""
    root = Path(registry.__file__).parent
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files = [root.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in names if name.startswith(f"{root.name}.")]
    return [str(file) for file in files if file.is_file() and file.name not in NOT_ITS_OWN]


def _canonical(node: Any) -> str:
    """A syntax tree as text without its places. Fields that are empty are left out: each version of Python adds some."""
    if isinstance(node, ast.AST):
        fields = [f"{name}={_canonical(value)}" for name, value in ast.iter_fields(node) if value is not None and value != []]
        return f"{type(node).__name__}({', '.join(fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_canonical, node))}]"
    return repr(node)
