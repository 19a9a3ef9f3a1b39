# SPDX-License-Identifier: MIT
"""FlowForce: a trained flow as an OpenMM Force."""
from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import openmm
from openmm import unit

from . import bindings
from ._flow_model import FlowModel
from ._units import array_in, as_index, as_indices, scalar_in


class SupportMargins(NamedTuple):
    """How far inside of the edges of a model's support FlowForce stays exactly -λ k_B T ln p, one value for each coordinate."""

    bonds: unit.Quantity
    """Inside each edge of a bond's support, nm, in the order of the model's coordinates: (particles - 1,), or one for each particle
    that is placed from a block in Cartesians."""
    angles: unit.Quantity
    """Inside each edge of the support of an angle of the Z-matrix, rad, in the order of the coordinates: (particles - 2,), or as
    many as bonds with a block."""
    torsionAngles: unit.Quantity
    """From collinearity, for the angle jkl of each torsion i-j-k-l, rad, in the order of the rows: (particles - 3,), or as many as
    bonds with a block."""


class FlowForce(bindings.FlowForce):
    """The potential of a trained normalizing flow: U = -λ k_B T ln p, summed over molecules, with analytic forces.

    p is the density of a :class:`FlowModel`, T the temperature of the data that it was trained on, λ a Context parameter
    (``FlowScale`` unless named otherwise; 1 by default). T belongs to the model, not to a thermostat: at the thermostat's
    temperature T', dynamics samples p^(λ T/T').

    >>> force = openmmflow.FlowForce("alanine_dipeptide.safetensors")
    >>> force.addMolecule(range(22))
    >>> system.addForce(force)

    Call addMolecule for each set of particles that the model is applied to. If it is never called, the System must consist of
    exactly the particles of one molecule.

    The potential is exactly the one above on the inner support of the model, which setMargins defines. Outside, it is continued
    to be finite and twice continuously differentiable, with walls, independent of λ, that push back.

    A Context cannot be created (OpenMMException) if a molecule's constraints differ from those that the model was trained with,
    or if it has virtual sites, massless particles or Drude particles. Hydrogen mass repartitioning is fine. Inside a
    CustomCVForce or ATMForce, which hide constraints from the forces that they hold, these checks cannot be made.

    ``system.getForce(i)`` returns a plain openmm.Force; :meth:`cast` makes a FlowForce of it.

    Parameters
    ----------
    model : FlowModel, str or os.PathLike
        the model, or the path of its file

    Raises
    ------
    FlowModelError
        the file holds no valid model
    TypeError
        the model is neither a FlowModel nor a path
    """

    def __init__(self, model: FlowModel | str | os.PathLike):
        if isinstance(model, (str, os.PathLike)):
            model = FlowModel.load(model)
        super().__init__(_handle(model))

    # The model

    def getModel(self) -> FlowModel:
        """The model that this force evaluates."""
        return FlowModel._of(super().getModel())

    def setModel(self, model: FlowModel) -> None:
        """Set the model, for example the same flow with other weights; then call updateParametersInContext.

        A temperature that was set stays. Margins that were set stay if the new model has the same architecture, otherwise they
        return to the defaults.
        """
        super().setModel(_handle(model))

    # Molecules

    def getNumMolecules(self) -> int:
        """The number of molecules that were added."""
        return super().getNumMolecules()

    def addMolecule(self, particles: Iterable[int]) -> int:
        """Add a molecule that the model is applied to.

        Parameters
        ----------
        particles : iterable of int
            the indices of its particles in the order of the model: a range, a list, a NumPy array. Creating a Context raises
            unless there are as many as the model has, each is in the System, and none occurs twice in the force.

        Returns
        -------
        int
            the index of the molecule
        """
        return super().addMolecule(as_indices(particles, "particles"))

    def getMoleculeParticles(self, index: int) -> tuple[int, ...]:
        """The particles of a molecule, in the order of the model. Raises OpenMMException if there is no such molecule."""
        return super().getMoleculeParticles(as_index(index, "index"))

    def setMoleculeParticles(self, index: int, particles: Iterable[int]) -> None:
        """Set the particles of a molecule. This has no effect on existing Contexts.

        Parameters
        ----------
        index : int
            the index of the molecule; OpenMMException if there is none
        particles : iterable of int
            the indices of its particles in the order of the model
        """
        super().setMoleculeParticles(as_index(index, "index"), as_indices(particles, "particles"))

    # Temperature

    def getTemperature(self) -> unit.Quantity:
        """T in U = -λ k_B T ln p, in K: what setTemperature set, otherwise the temperature of the model."""
        return super().getTemperature()*unit.kelvin

    def setTemperature(self, temperature: float | unit.Quantity) -> None:
        """Set T in U = -λ k_B T ln p to another value than the temperature of the model.

        Parameters
        ----------
        temperature : float or Quantity
            in K; OpenMMException unless it is finite and > 0, TypeError if it is of another unit
        """
        super().setTemperature(scalar_in(temperature, unit.kelvin, "temperature"))

    def hasTemperatureOverride(self) -> bool:
        """Whether setTemperature was called."""
        return super().hasTemperatureOverride()

    # λ

    def getScaleParameterName(self) -> str:
        """The name of the Context parameter λ."""
        return super().getScaleParameterName()

    def setScaleParameterName(self, name: str) -> None:
        """Set the name of the Context parameter λ. Several forces may share it if their defaults are equal."""
        super().setScaleParameterName(name)

    def getDefaultScale(self) -> float:
        """The value of λ in a new Context."""
        return super().getDefaultScale()

    def setDefaultScale(self, scale: float) -> None:
        """Set the value of λ in a new Context. OpenMMException unless it is finite."""
        super().setDefaultScale(scalar_in(scale, unit.dimensionless, "scale"))

    def addEnergyParameterDerivative(self, name: str) -> None:
        """Ask for the derivative of the energy with respect to λ.

        A State taken with ``parameterDerivatives=True`` then holds it, in kJ/mol. Asking twice is the same as asking once.

        Parameters
        ----------
        name : str
            getScaleParameterName(); OpenMMException for any other, as λ is the only parameter of this force
        """
        super().addEnergyParameterDerivative(name)

    def getNumEnergyParameterDerivatives(self) -> int:
        """The number of parameters whose energy derivative is computed: 0 or 1."""
        return super().getNumEnergyParameterDerivatives()

    def getEnergyParameterDerivativeName(self, index: int) -> str:
        """The name of a parameter whose energy derivative is computed. OpenMMException if there is no such index."""
        return super().getEnergyParameterDerivativeName(as_index(index, "index"))

    # Periodic boundaries

    def usesPeriodicBoundaryConditions(self) -> bool:
        """Whether molecules are made whole before they are evaluated."""
        return super().usesPeriodicBoundaryConditions()

    def setUsesPeriodicBoundaryConditions(self, periodic: bool) -> None:
        """Set whether molecules are made whole, along the bonds of the model, with the periodic box of the Context.

        The box may be rectangular or triclinic; a bond must be shorter than half of it. The default is False.
        """
        super().setUsesPeriodicBoundaryConditions(bool(periodic))

    # Inner support

    def getMargins(self) -> SupportMargins:
        """The margins of the inner support: what setMargins set, otherwise the defaults of the model."""
        bonds, angles, torsion_angles = super().getMargins()
        return SupportMargins(np.array(bonds)*unit.nanometer, np.array(angles)*unit.radian, np.array(torsion_angles)*unit.radian)

    def setMargins(self, margins: SupportMargins) -> None:
        """Set the margins of the inner support.

        >>> force.setMargins(force.getMargins()._replace(bonds=0.002))

        Parameters
        ----------
        margins : SupportMargins
            each an array in nm or rad, a Quantity of one, or a single number for all coordinates of its kind

        Raises
        ------
        OpenMMException
            there is not one, finite and > 0, for every coordinate
        TypeError
            one is of another unit, or there are not three kinds
        """
        if isinstance(margins, (str, unit.Quantity)) or not np.iterable(margins) or len(margins) != 3:
            raise TypeError("margins must be a SupportMargins, that is three arrays (bonds, angles, torsionAngles); "
                            f"getMargins() gives one. Got {margins!r}")
        units = (unit.nanometer, unit.radian, unit.radian)
        # Of each kind as many as there are now.
        super().setMargins(*(_each(array_in(values, length_or_angle, f"margins of {name}"), len(present)) for name, values, length_or_angle, present
                             in zip(SupportMargins._fields, margins, units, super().getMargins())))

    def hasMarginsOverride(self) -> bool:
        """Whether setMargins was called."""
        return super().hasMarginsOverride()

    # In a Context

    def updateParametersInContext(self, context: openmm.Context) -> None:
        """Copy the weights of the model, the temperature and the margins to a Context that holds this force.

        Nothing else can change in a Context: OpenMMException if the architecture of the model, the molecules, the name of the
        scale parameter, the requested derivatives or the use of periodic boundary conditions differ from those of the Context.
        """
        super().updateParametersInContext(context)

    def getLogProbs(self, context: openmm.Context) -> np.ndarray:
        """ln p of each molecule at the current positions of a Context that holds this force.

        It is the true density, per nm³ of the molecule's origin: -inf outside of the support.

        Returns
        -------
        (molecules,)
        """
        return np.array(super().getLogProbs(context))

    def getLatents(self, context: openmm.Context) -> np.ndarray:
        """The latents z of each molecule at the current positions of a Context that holds this force.

        Returns
        -------
        (molecules, num_coordinates), NaN outside of the support
        """
        return np.array(super().getLatents(context))

    def getNumSupportExits(self, context: openmm.Context) -> int:
        """How often a Context that holds this force evaluated a molecule outside of the inner support.

        There the potential is no longer -λ k_B T ln p, but continued. It is the number of pairs (molecule, evaluation) since the
        Context was made. Every evaluation of energy or forces counts, those of minimizers and of getState as well; checkpoints
        and States do not hold it.
        """
        return super().getNumSupportExits(context)

    # Being an OpenMM Force

    @staticmethod
    def isinstance(force: openmm.Force) -> bool:
        """Whether an openmm.Force, such as System.getForce returns, is a FlowForce."""
        return bindings.FlowForce.fromForce(force) is not None

    @staticmethod
    def cast(force: openmm.Force) -> FlowForce:
        """The FlowForce that an openmm.Force, such as System.getForce returns, is.

        Both stand for the same C++ object and share its ownership.

        Raises
        ------
        TypeError
            the force is no FlowForce
        """
        if isinstance(force, FlowForce):
            return force
        result = bindings.FlowForce.fromForce(force)
        if result is None:
            raise TypeError(f"this {type(force).__name__} is no FlowForce")
        result.__class__ = FlowForce
        # The object dies with the last holder of `this`, if that owns it: one for both.
        result.thisown = force.thisown
        force.thisown = False
        force.this = result.this
        return result

    # openmm.Force has these, too, but there they make plain Forces.

    def __copy__(self) -> FlowForce:
        duplicate = FlowForce.cast(openmm.XmlSerializer.clone(self))
        duplicate.__class__ = type(self)
        duplicate.__dict__.update(copy.deepcopy({name: value for name, value in self.__dict__.items() if name != "this"}))
        return duplicate

    def __deepcopy__(self, memo) -> FlowForce:
        return self.__copy__()

    def __getstate__(self) -> str:
        return openmm.XmlSerializer.serialize(self)

    def __setstate__(self, xml: str) -> None:
        self.this = FlowForce.cast(openmm.XmlSerializer.deserialize(xml)).this

    def __repr__(self) -> str:
        model = self.getModel()
        molecules = self.getNumMolecules()
        return (f"<openmmflow.FlowForce {self.getName()!r}: model {model.checksum} of {model.num_particles} particles, "
                f"{f'{molecules} molecules' if molecules != 1 else '1 molecule'}, T = {self.getTemperature()}>")


FlowForce.__module__ = SupportMargins.__module__ = "openmmflow"


def _handle(model) -> bindings.FlowModel:
    """The C++ object of a model. Raises TypeError for anything else."""
    if not isinstance(model, FlowModel):
        raise TypeError(f"expected an openmmflow.FlowModel or the path of a model file, got {type(model).__name__}")
    return model._handle


def _each(margins: np.ndarray, count: int) -> list[float]:
    """Margins as a list; a single number stands for `count` of them."""
    return [float(margins)]*count if margins.ndim == 0 else margins.ravel().tolist()
