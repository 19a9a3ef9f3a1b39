# SPDX-License-Identifier: MIT
"""``python -m openmmflow_training TOPOLOGY.pdb DATA.h5 ... -o MODEL.safetensors --minutes 60``"""
from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import typing
from pathlib import Path

from openmm import app
from openmmflow.builder import FlowOptions

from .trainer import TrainingConfig, train


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m openmmflow_training",
                                     description="Train a smooth flow on data sets of openmmflow.dataset.")
    parser.add_argument("topology", help="PDB file of the molecule, with its bonds")
    parser.add_argument("datasets", nargs="+", help="HDF5 files")
    parser.add_argument("-o", "--output", required=True,
                        help="model file; its checkpoint and log lie beside it, and a run that was interrupted goes on")
    _add_options(parser, TrainingConfig)
    _add_options(parser, FlowOptions)
    values = vars(parser.parse_args(arguments))
    flow = FlowOptions(**_given(values, FlowOptions))
    try:
        config = TrainingConfig(flow=flow, **_given(values, TrainingConfig))
        pdb = app.PDBFile(values["topology"])
        # Without folders, which mean nothing on another machine.
        words = [Path(word).name if "/" in word else word for word in (arguments or sys.argv[1:])]
        command = shlex.join(["python", "-m", "openmmflow_training", *words])
        train(pdb.topology, values["datasets"], values["output"], config, command=command)
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")


def _add_options(parser, options):
    """One command line option for every field of a dataclass that is a number, a word or a switch."""
    group = parser.add_argument_group(options.__name__)
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        kind = next((t for t in typing.get_args(hints[field.name]) if t is not type(None)), hints[field.name])
        if hints[field.name] is bool:
            kind_options = {"action": argparse.BooleanOptionalAction}
        elif kind in (int, float, str) and typing.get_origin(hints[field.name]) is not tuple:
            kind_options = {"type": kind, "metavar": kind.__name__.upper()}
        else:
            continue
        group.add_argument("--" + field.name.replace("_", "-"), default=None, help=f"default {field.default}", **kind_options)


def _given(values, options):
    return {f.name: values[f.name] for f in dataclasses.fields(options) if values.get(f.name) is not None}


if __name__ == "__main__":
    main()
