"""The networks of the five systems. One file is one network; `SYSTEMS` is all of them."""

from __future__ import annotations

import importlib
from typing import Any

SYSTEMS = {
    "tcn_transformer": "trainer.systems.tcn_transformer:TcnTransformer",  # Yu et al. (VA), Zhou et al.
    "gru_transformer": "trainer.systems.gru_transformer:GruTransformer",  # Nguyen et al., VA, stage 1
    "gru_attention": "trainer.systems.gru_attention:GruAttention",  # Nguyen et al., VA, stage 2
    "two_transformers": "trainer.systems.two_transformers:TwoTransformers",  # Nguyen et al., AU
    "clip_tcn": "trainer.systems.clip_tcn:ClipTcn",  # Yu et al. (EMI)
    "joint_attention": "trainer.systems.joint_attention:JointAttention",  # Praveen et al., the paper's equations
    "released_joint_attention": "trainer.systems.released_joint_attention:ReleasedJointAttention",  # and what its authors released
}


def system_class(name: str) -> Any:
    """A class of the contract's System, imported now."""
    module, _, class_name = SYSTEMS[name].partition(":")
    return getattr(importlib.import_module(module), class_name)
