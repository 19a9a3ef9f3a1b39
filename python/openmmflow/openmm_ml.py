# SPDX-License-Identifier: MIT
"""The potential "flow" of OpenMM-ML, which finds it through the entry point group ``openmmml.potentials``.

>>> potential = openmmml.MLPotential("flow", modelPath="model.safetensors")
>>> system = potential.createSystem(topology)                                  # the flow alone
>>> mixed = potential.createMixedSystem(topology, mmSystem, atoms)             # the flow within a molecule, a force field for the rest

``atoms`` are those of one molecule in the order of the model. OpenMM-ML removes the constraints between them unless it is called with
``removeConstraints=False``; do so if the model was trained with constraints. What the flow learned of a solvent counts twice in a solvent:
use models that were trained in vacuum. :func:`openmmflow.replaceMolecule` does the same without OpenMM-ML and knows more kinds of Forces.
"""
from __future__ import annotations

import warnings

from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory


class FlowPotentialImplFactory(MLPotentialImplFactory):
    """Makes the implementation of ``MLPotential("flow", modelPath=...)``."""

    def createImpl(self, name: str, modelPath=None, **args) -> FlowPotentialImpl:
        """
        Parameters
        ----------
        name : "flow"
        modelPath : the path of a model file, or a FlowModel.

        Raises
        ------
        ValueError : no model was given, or there is no valid one in the file (FlowModelError).
        TypeError : an argument that does not exist.
        """
        from . import FlowModel

        if modelPath is None:
            raise ValueError(f'MLPotential("{name}") needs a model: MLPotential("{name}", modelPath="model.safetensors")')
        if args:
            raise TypeError(f'MLPotential("{name}") has no argument {", ".join(sorted(args))}; it has modelPath alone')
        return FlowPotentialImpl(modelPath if isinstance(modelPath, FlowModel) else FlowModel.load(modelPath))


class FlowPotentialImpl(MLPotentialImpl):
    """The potential of one FlowModel."""

    def __init__(self, model):
        self.model = model

    def getMLLongRange(self) -> bool:
        """False: the flow is a potential of one molecule, which knows nothing of periodic images."""
        return False

    def addForces(self, topology, system, atoms, forceGroup: int, **args) -> None:
        """Add the FlowForce, and, where the flow is the whole System, the constraints that the model was trained with.

        Raises
        ------
        ValueError : the atoms are not one molecule of the model; without ``atoms``, the topology is not a number of molecules of it, one
            after the other. These do not interact.

        Warns
        -----
        UserWarning : bonds of the model that are no bonds of the topology; a model of a molecule in solvent among other atoms.
        """
        from . import FlowForce
        from .replace_molecule import implicit_solvent, solvent_of, split_molecules, warn_of_order

        whole = atoms is None
        molecules = split_molecules(range(topology.getNumAtoms()) if whole else atoms, self.model)
        if not whole and len(molecules) > 1:
            raise ValueError(f"{len(atoms)} atoms are {len(molecules)} molecules of the model, and OpenMM-ML takes out what acts between them as "
                             "well, which a flow does not replace. Use openmmflow.replaceMolecule")
        bonds = {frozenset((first.index, second.index)) for first, second in topology.bonds()}
        missing = [(molecule[i], molecule[j]) for molecule in molecules for i, j in self.model.bonds
                   if frozenset((molecule[i], molecule[j])) not in bonds]
        if bonds and missing:
            warn_of_order(missing)
        solvent = solvent_of(self.model)
        if not whole and solvent not in (None, "vacuum") and (topology.getNumAtoms() > len(atoms) or implicit_solvent(system)):
            warnings.warn(f"the model was trained on a molecule in {solvent} solvent. In another solvent, explicit or implicit, the effect of a "
                          "solvent counts twice: use a model that was trained in vacuum", UserWarning, stacklevel=4)
        if whole:
            for molecule in molecules:
                for i, j, distance in self.model.constraints:
                    system.addConstraint(molecule[i], molecule[j], distance)
        force = FlowForce(self.model)
        for molecule in molecules:
            force.addMolecule(molecule)
        force.setUsesPeriodicBoundaryConditions(topology.getPeriodicBoxVectors() is not None)
        force.setForceGroup(forceGroup)
        system.addForce(force)
