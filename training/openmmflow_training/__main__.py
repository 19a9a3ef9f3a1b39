# SPDX-License-Identifier: MIT
"""``openmmflow train``, the same as ``python -m openmmflow_training``; under ``torchrun`` the latter."""
from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import types
import typing
import warnings
from pathlib import Path

import openmm
from openmm import app
from openmmflow.builder import FlowOptions
from openmmflow.system_file import read_system

from . import parallel
from .data import DataWarning
from .trainer import TrainingConfig, Weight, train

FILES = ("topology", "data", "output", "system", "forces", "temperature", "force_field", "environment", "z_matrix")
"""What a TOML file may say besides the fields of TrainingConfig and, in its table [flow], of FlowOptions."""


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="openmmflow train", description="Train a smooth flow on data sets of `openmmflow dataset` or other trajectories.",
        epilog="All of it can stand in a TOML file, under the names of the options with _ for - (data for DATA, output); paths there are "
               "relative to it, the shape of the flow is in its table [flow], and options of the command line come first.")
    parser.add_argument("topology", nargs="?", help="the molecules with their bonds: PDB, PDBx/mmCIF, prmtop, PSF, MOL2")
    parser.add_argument("data", nargs="*", help="HDF5 files of `openmmflow dataset`, or trajectories")
    parser.add_argument("-c", "--config", type=Path, help="TOML file")
    parser.add_argument("-o", "--output", help="model file; its checkpoint, log and report lie beside it, and a run that was interrupted goes on")
    parser.add_argument("--system", metavar="XML", help="serialized OpenMM System: forces for trajectories, energies for the reverse KL")
    parser.add_argument("--forces", nargs="+", metavar="NPZ", help="forces of trajectories, with their units, one file for each")
    parser.add_argument("--temperature", type=float, metavar="K", help="of trajectories, which do not say")
    parser.add_argument("--force-field", nargs="+", metavar="NAME", help="of trajectories, for the record in the model")
    parser.add_argument("--environment", metavar="TEXT", help="vacuum, implicit solvent or explicit solvent; for the record in the model")
    parser.add_argument("--z-matrix", metavar="JSON", help="file with rows [i, j, k, l]; otherwise it is made from the bonds")
    _add_options(parser, TrainingConfig)
    _add_options(parser, FlowOptions)
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value not in (None, [])}
    words = list(sys.argv[1:] if arguments is None else arguments)
    joined = parallel.start()
    try:
        warnings.formatwarning = _format_warning(warnings.formatwarning)
        settings = _with_file(given)
        missing = [name for name in ("topology", "data", "output") if name not in settings]
        if missing:
            raise ValueError(f"training needs {' and '.join(missing)}: give them on the command line or in a TOML file")
        flow = FlowOptions(**_chosen(settings, FlowOptions))
        config = TrainingConfig(flow=flow, **_chosen(settings, TrainingConfig))
        # Without folders, which mean nothing on another machine.
        command = shlex.join(["openmmflow", "train", *(Path(word).name if "/" in word else word for word in words)])
        system = read_system(settings["system"]) if "system" in settings else None
        z_matrix = json.loads(Path(settings["z_matrix"]).read_text()) if "z_matrix" in settings else None
        record = {key: settings[name] for key, name in (("forceField", "force_field"), ("environment", "environment")) if name in settings}
        train(read_topology(settings["topology"]), settings["data"], settings["output"], config, system=system, z_matrix=z_matrix,
              forces=settings.get("forces", ()), temperature=settings.get("temperature"), data=record, command=command)
    except (ValueError, OSError, openmm.OpenMMException) as error:
        parser.exit(1, f"openmmflow: error: {error}\n")
    finally:
        if joined:
            parallel.stop()


def read_topology(path) -> app.Topology:
    """The topology in a file: what OpenMM reads with bonds, otherwise what MDTraj does. Raises ValueError."""
    path = Path(path)
    readers = {".pdb": app.PDBFile, ".cif": app.PDBxFile, ".pdbx": app.PDBxFile, ".prmtop": app.AmberPrmtopFile, ".parm7": app.AmberPrmtopFile,
               ".psf": app.CharmmPsfFile}
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        if path.suffix in readers:
            return readers[path.suffix](str(path)).topology
        import mdtraj

        return mdtraj.load_topology(str(path)).to_openmm()
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a topology: {error}") from error


def _with_file(given: dict) -> dict:
    """Settings of the command line, completed by those of the TOML file."""
    if "config" not in given:
        return given
    try:
        import tomllib
    except ModuleNotFoundError:    # Python 3.10
        import tomli as tomllib
    path = given.pop("config")
    try:
        document = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML file: {error}") from None
    flow = document.pop("flow", {})
    known = {f.name for f in dataclasses.fields(TrainingConfig)} - {"flow"} | set(FILES)
    shape = {f.name for f in dataclasses.fields(FlowOptions)}
    unknown = sorted(set(document) - known) + sorted(f"flow.{name}" for name in set(flow) - shape)
    if unknown:
        raise ValueError(f"{path}: there is no setting {', '.join(unknown)}; `openmmflow train --help` lists them")
    for name in ("topology", "output", "system", "z_matrix", "start_from"):
        if name in document:
            document[name] = str(path.parent / document[name])
    for name in ("data", "forces"):
        if name in document:
            files = [document[name]] if isinstance(document[name], str) else document[name]
            document[name] = [str(path.parent / file) for file in files]
    if "betas" in document:
        document["betas"] = tuple(document["betas"])
    return {**document, **flow, **given}


def _add_options(parser, options):
    """One command line option for every field of a dataclass that is a number, a word, a switch or the weight of a loss."""
    group = parser.add_argument_group(options.__name__)
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        kind = hints[field.name]
        if kind == Weight:
            kind_options = {"type": str, "metavar": "WEIGHT"}
        else:
            if isinstance(kind, types.UnionType):
                kind = next(t for t in typing.get_args(kind) if t is not type(None))
            if kind is bool:
                kind_options = {"action": argparse.BooleanOptionalAction}
            elif kind in (int, float, str):
                kind_options = {"type": kind, "metavar": kind.__name__.upper()}
            else:
                continue
        group.add_argument("--" + field.name.replace("_", "-"), default=None, help=f"default {field.default}", **kind_options)


def _chosen(values, options):
    return {f.name: values[f.name] for f in dataclasses.fields(options) if f.name in values}


def _format_warning(standard):
    def format_warning(message, category, *rest, **options):
        if issubclass(category, DataWarning):
            return f"openmmflow: warning: {message}\n"
        return standard(message, category, *rest, **options)
    return format_warning


if __name__ == "__main__":
    main()
