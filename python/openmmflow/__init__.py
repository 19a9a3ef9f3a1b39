# SPDX-License-Identifier: MIT
"""Smooth normalizing flows as molecular potentials in OpenMM.

>>> import openmm, openmmflow
>>> force = openmmflow.FlowForce("alanine_dipeptide.safetensors")
>>> force.addMolecule(range(22))
>>> system.addForce(force)

:class:`FlowForce` is an openmm.Force, :class:`FlowModel` a trained flow. Model files are described in docs/model_format.md;
``openmmflow.model_file`` writes them from plain arrays, ``openmmflow.importers`` makes them from published checkpoints. The
command ``openmmflow`` has check, demo, info, import, sample, simulate and train. :class:`FlowMonteCarlo` moves molecules of a
Simulation, :func:`replaceMolecule` puts a flow into a System of a force field, ``openmmflow.reweighting`` turns samples into averages of
a force field.
"""
import importlib.metadata
from typing import TYPE_CHECKING

from ._errors import FlowModelError
from ._plugins import load_failures, registration_message, version_mismatch, why_not_loaded, why_not_supported
from .processor import one_core

__version__ = importlib.metadata.version("openmmflow")
__all__ = ["FlowForce", "FlowModel", "FlowModelError", "FlowMonteCarlo", "FlowReporter", "SupportMargins", "one_core", "registration_message",
           "replaceMolecule", "version_mismatch", "why_not_supported"]

# With another OpenMM than the one built for, the compiled part may not load. The rest of the package works all the same, and
# `openmmflow info` says why.
if not why_not_loaded():
    from ._flow_force import FlowForce, SupportMargins
    from ._flow_model import FlowModel
    from .flow_reporter import FlowReporter
    from .replace_molecule import replaceMolecule
if TYPE_CHECKING:
    from .monte_carlo import FlowMonteCarlo


def __getattr__(name):
    if name == "FlowMonteCarlo" and not why_not_loaded():
        # Only those who sample wait for what it imports.
        from .monte_carlo import FlowMonteCarlo

        return FlowMonteCarlo
    if name in __all__:
        raise ImportError(f"openmmflow.{name} is not available: {why_not_loaded()}")
    raise AttributeError(f"module 'openmmflow' has no attribute {name!r}")
