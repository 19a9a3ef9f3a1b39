# SPDX-License-Identifier: MIT
"""A reporter for ``openmm.app.Simulation`` that knows what a flow thinks of the molecules."""
from __future__ import annotations

import os
from typing import TextIO

import openmm
from openmm import app, unit

from .inner_support import flow_forces

HEADER = '#"Step","Time (ps)","ln p","Potential Energy (kJ/mol)","Molecules Outside","Support Exits"'


class FlowReporter:
    """Writes how likely the flow takes the molecules for, and how often dynamics left the inner support, as CSV.

    A line has the step; the time, ps; the sum of ln p over all molecules of all FlowForces of the System (-inf where one is outside
    of the support); the potential energy of the System, kJ/mol; the number of molecules whose ln p is -inf; and the number of support
    exits since the Context was made (:meth:`FlowForce.getNumSupportExits`: the report's own evaluation counts, too).

    >>> simulation.reporters.append(openmmflow.FlowReporter("flow.csv", 1000))

    Parameters
    ----------
    file : path, or an object with a method write
    reportInterval : steps between lines, at least 1
    append : go on with a file that has a header already

    Raises
    ------
    ValueError
        the interval is not positive, or, at the first report, the System has no FlowForce
    OSError
        the file cannot be opened
    """

    def __init__(self, file: str | os.PathLike | TextIO, reportInterval: int, append: bool = False):
        if reportInterval < 1:
            raise ValueError(f"reportInterval must be at least 1 step, got {reportInterval}")
        self._interval = reportInterval
        self._opened = not hasattr(file, "write")
        self._file = open(file, "a" if append else "w", encoding="utf-8") if self._opened else file
        self._has_header = append
        self._forces = None

    def describeNextReport(self, simulation: app.Simulation) -> dict:
        """What ``Simulation`` asks each reporter for."""
        return {"steps": self._interval - simulation.currentStep % self._interval, "periodic": None, "include": ["energy"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write a line."""
        if self._forces is None:
            self._forces = flow_forces(simulation.system)
            if not self._forces:
                raise ValueError("FlowReporter reports on FlowForces, but the System of this Simulation has none")
        log_probs = [log_prob for force in self._forces for log_prob in force.getLogProbs(simulation.context)]
        exits = sum(force.getNumSupportExits(simulation.context) for force in self._forces)
        if not self._has_header:
            print(HEADER, file=self._file)
            self._has_header = True
        print(simulation.currentStep, state.getTime().value_in_unit(unit.picosecond), float(sum(log_probs)),
              state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole), sum(value == -float("inf") for value in log_probs),
              exits, sep=",", file=self._file)
        if hasattr(self._file, "flush"):
            self._file.flush()

    def __del__(self):
        if getattr(self, "_opened", False) and hasattr(self, "_file"):
            self._file.close()
