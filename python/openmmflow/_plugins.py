# SPDX-License-Identifier: MIT
"""Whether FlowForce can run here, and if not, why: the compiled part of the package and the plugins that OpenMM loaded."""
from __future__ import annotations

import importlib.metadata

import openmm  # loads the plugins

try:
    from . import bindings
except ImportError as error:
    bindings = None
    _import_error = error

_LIBRARY_NAME = "OpenMMFlow"


def registration_message() -> str:
    """What became of the compiled parts of this package, for `openmmflow info`.

    One line for each plugin library that OpenMM loaded, with the platforms that FlowForce now runs on or the reason why it
    registered nothing, then one for each that OpenMM could not load.
    """
    lines = [bindings.registrationMessage().strip()] if bindings is not None else [why_not_loaded()]
    lines += load_failures()
    return "\n".join(line for line in lines if line)


def load_failures() -> list[str]:
    """What OpenMM says about those plugin libraries of this package that it could not load."""
    return [failure for failure in openmm.Platform.getPluginLoadFailures() if _LIBRARY_NAME in failure]


def version_mismatch() -> str:
    """Why the package does not work with the OpenMM that is running; empty if it does."""
    return bindings.versionMismatch() if bindings is not None else why_not_loaded()


def why_not_supported(platform: str) -> str:
    """Why FlowForce does not run on a platform and what to do; empty if it does."""
    return bindings.whyNotSupported(platform) if bindings is not None else why_not_loaded()


def why_not_loaded() -> str:
    """Why there is no compiled part, and what to do; empty if there is one."""
    if bindings is not None:
        return ""
    needed = next((requirement for requirement in importlib.metadata.requires("openmmflow") or [] if "openmm==" in requirement),
                  "OpenMM")
    return (f"the compiled part of openmmflow did not load: {_import_error}. It needs {needed} and OpenMM "
            f"{openmm.Platform.getOpenMMVersion()} is running; install both together: pip install --force-reinstall openmmflow")
