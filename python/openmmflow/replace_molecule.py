# SPDX-License-Identifier: MIT
"""A flow in place of a force field for some molecules of a System, and the force field for everything else."""
from __future__ import annotations

import itertools
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable

import openmm

from ._flow_force import FlowForce
from ._flow_model import FlowModel
from ._units import as_indices

# Forces of terms on listed particles: the list of terms, as the System's XML has it, and the attributes with particles (or groups).
_BONDED = {
    "HarmonicBondForce": ("Bonds/Bond", r"p\d"), "CustomBondForce": ("Bonds/Bond", r"p\d"),
    "HarmonicAngleForce": ("Angles/Angle", r"p\d"), "CustomAngleForce": ("Angles/Angle", r"p\d"),
    "PeriodicTorsionForce": ("Torsions/Torsion", r"p\d"), "RBTorsionForce": ("Torsions/Torsion", r"p\d"),
    "CustomTorsionForce": ("Torsions/Torsion", r"p\d"), "CMAPTorsionForce": ("Torsions/Torsion", r"[ab]\d"),
    "CustomCompoundBondForce": ("Bonds/Bond", r"p\d+"), "CustomCentroidBondForce": ("Bonds/Bond", r"g\d+"),
}
# Solvation in place of a solvent: not a sum over pairs, so a molecule's part cannot be taken out.
_SOLVATION = ("GBSAOBCForce", "CustomGBForce", "LCPOForce", "AmoebaGeneralizedKirkwoodForce", "AmoebaWcaDispersionForce")
# No interaction within a molecule, or a bias on it that is meant to stay.
_KEPT = ("AndersenThermostat", "CMMotionRemover", "CustomCVForce", "CustomExternalForce", "CustomVolumeForce", "FlowForce",
         "MonteCarloAnisotropicBarostat", "MonteCarloBarostat", "MonteCarloFlexibleBarostat", "MonteCarloMembraneBarostat",
         "OrientationRestraintForce", "RGForce", "RMSDForce",
         "RPMDMonteCarloBarostat")


def replaceMolecule(system: openmm.System, atoms: Iterable[int], model: FlowModel | str, *, environment: str | None = None,
                    keep: Iterable[str] = (), forceGroup: int = 0) -> openmm.System:
    """A copy of a System in which a flow takes the place of the force field within a molecule.

    The energy of the result is E(system) - E_internal(molecule) + U_flow, where E_internal are all terms that act between the
    molecule's own particles alone:

    - bonds, angles, torsions, CMAP, compound and centroid terms are removed;
    - pairs get an exception without charge product and depth in NonbondedForce and GayBerneForce, an exclusion in
      CustomNonbondedForce, hydrogen bonds one in CustomHbondForce. With PME the interaction of a pair with its nearest image is
      taken out completely (q_i q_j/r); what the molecule feels of its other images stays;
    - constraints become those of the model: others within the molecule are removed, missing ones are added, and their distances are the
      model's. A flow that was trained without constraints so takes those of bonds with hydrogen out: use a step of 1 fs.

    What acts between the molecule and others stays as it is, and so do barostats, thermostats, and biases on particles or collective
    variables (CustomExternalForce, CustomCVForce, RMSDForce ...).

    **Implicit solvent** (GBSAOBCForce, CustomGBForce and their like) is no sum over pairs, and no part of it can be taken out for some
    particles. So it stays if the flow was trained in vacuum: it then adds the solvation that the flow has not. If the flow was trained in
    solvent it is removed where the System is the molecule and nothing else; otherwise this raises.

    Parameters
    ----------
    system : it is not changed. Its Forces must be those of OpenMM.
    atoms : the particles of the molecule in the order of the model: a range, a list. Twice as many as the model has are two molecules,
        one after the other, and so on; what acts between them stays.
    model : a FlowModel or the path of its file.
    environment : of the data that the model was trained on: "vacuum", "implicit solvent" or "explicit solvent"; None: what the model says.
    keep : names (Force.getName()) of Forces that stay as they are although this function cannot tell what of them acts within a molecule.
    forceGroup : of the FlowForce.

    Returns
    -------
    openmm.System
        its last Force is the FlowForce: ``FlowForce.cast(result.getForces()[-1])``. It is periodic if the System is.

    Raises
    ------
    FlowModelError : there is no valid model in the file.
    ValueError : particles that do not exist, occur twice, are virtual sites, or have a flow already, or whose number does not fit the
        model; a constraint or virtual site that ties the molecule to other particles; a Force whose internal part cannot be taken out.

    Warns
    -----
    UserWarning : a model of a molecule in solvent among other particles, whose solvation would count twice; bonds of the model that are
        no bonds of the System (are the atoms in the order of the model?); bonds to other particles.
    """
    if not isinstance(model, FlowModel):
        model = FlowModel.load(model)
    molecules = split_molecules(atoms, model)
    _check_particles(system, molecules)
    keep = set(keep)
    unknown = keep - {force.getName() for force in system.getForces()}
    if unknown:
        raise ValueError(f"keep names no Force of the System: {', '.join(sorted(unknown))}; its Forces are "
                         + ", ".join(force.getName() for force in system.getForces()))
    owner = {particle: index for index, molecule in enumerate(molecules) for particle in molecule}
    drop_solvation = _must_drop_solvation(system, molecules, model, environment, keep)
    _check_bonds(system, molecules, model, owner)

    result = _without_bonded_terms(system, owner, keep)
    for index in reversed(range(result.getNumForces())):
        force = result.getForce(index)
        kind = _kind(force)
        if force.getName() in keep or kind in _BONDED or kind in _KEPT:
            continue
        if kind in _SOLVATION:
            if drop_solvation:
                result.removeForce(index)
        elif kind in _EXCLUDE:
            _EXCLUDE[kind](force, molecules)
        else:
            raise ValueError(f"the System has a {kind} ({force.getName()!r}), of which replaceMolecule does not know how to take out what acts "
                             "within a molecule. Take it out of the System yourself, or, if it has no part in the molecule's own energy, "
                             f"give keep=[{force.getName()!r}]")
    _set_constraints(result, molecules, model, owner)
    flow = FlowForce(model)
    for molecule in molecules:
        flow.addMolecule(molecule)
    flow.setUsesPeriodicBoundaryConditions(system.usesPeriodicBoundaryConditions())
    flow.setForceGroup(forceGroup)
    result.addForce(flow)
    return result


def split_molecules(atoms: Iterable[int], model: FlowModel) -> list[list[int]]:
    """Particles of molecules that follow each other, as one list for each. Raises ValueError unless they are whole molecules of the model."""
    atoms = as_indices(atoms, "atoms")
    size = model.num_particles
    if not atoms or len(atoms) % size:
        raise ValueError(f"the model is of a molecule of {size} particles, but {len(atoms)} atoms were given. Give all atoms of the molecule, "
                         "in the order of the model; for several molecules one after the other")
    return [atoms[start:start + size] for start in range(0, len(atoms), size)]


def warn_of_order(missing: list[tuple[int, int]]) -> None:
    """Warn that bonds of the model, as pairs of particles of a System or Topology, are no bonds there."""
    warnings.warn(f"{len(missing)} bonds of the model are no bonds here, the first is that of particles {missing[0][0]} and {missing[0][1]}: "
                  "the atoms must be in the order in which the model was trained. (A model that was imported from another program may have "
                  "pseudo-bonds; then this is no cause for concern.)", UserWarning, stacklevel=3)


def _kind(force) -> str:
    """The name of the class. Of a plugin's Force, which Python may know as Force only, what it is called in XML."""
    kind = type(force).__name__
    if FlowForce.isinstance(force):
        return "FlowForce"
    if kind == "Force":
        return ElementTree.fromstring(openmm.XmlSerializer.serialize(force)).get("type", kind)
    return kind


def _check_particles(system, molecules):
    particles = [particle for molecule in molecules for particle in molecule]
    count = system.getNumParticles()
    outside = [particle for particle in particles if not 0 <= particle < count]
    if outside:
        raise ValueError(f"there is no particle {outside[0]}: the System has {count}, from 0 to {count - 1}")
    seen = set()
    for particle in particles:
        if particle in seen:
            raise ValueError(f"particle {particle} is given twice")
        seen.add(particle)
    for particle in range(count):
        if system.isVirtualSite(particle):
            site = system.getVirtualSite(particle)
            if particle in seen or any(site.getParticle(i) in seen for i in range(site.getNumParticles())):
                raise ValueError(f"particle {particle} is a virtual site of the molecule; a flow is of molecules without such. Use a force field "
                                 "that describes the molecule by its atoms alone")
    for force in system.getForces():
        if FlowForce.isinstance(force):
            flow = FlowForce.cast(force)
            taken = {p for i in range(flow.getNumMolecules()) for p in flow.getMoleculeParticles(i)} or set(range(count))
            if taken & seen:
                raise ValueError(f"particle {min(taken & seen)} belongs to a molecule of a FlowForce of this System already")


def solvent_of(model: FlowModel, environment: str | None = None) -> str | None:
    """What the model was trained in, as far as it tells (or as ``environment`` says): "vacuum", "implicit", "explicit" or None."""
    found = re.search("vacuum|implicit|explicit", str(environment or model.data.get("environment")).lower())
    return found and found[0]


def implicit_solvent(system: openmm.System) -> list[openmm.Force]:
    """The Forces of a System that stand for a solvent."""
    return [force for force in system.getForces() if _kind(force) in _SOLVATION]


def _must_drop_solvation(system, molecules, model, environment, keep) -> bool:
    """Whether implicit solvent goes, because the flow contains it. Warns of solvation that counts twice, raises where nothing is right."""
    solvent = solvent_of(model, environment)
    alone = len(molecules) == 1 and system.getNumParticles() == model.num_particles
    solvation = ", ".join(force.getName() for force in implicit_solvent(system) if force.getName() not in keep)
    solvated = solvent in ("implicit", "explicit")
    if not solvation:
        if solvated and not alone:
            warnings.warn(f"the model was trained on a molecule in {solvent} solvent, and here it is among other particles: the effect of the "
                          "solvent would count twice, once in the flow and once in the interactions with these. Use a model that was trained in "
                          "vacuum", UserWarning, stacklevel=3)
        return False
    if solvent is None:
        raise ValueError(f"the System has implicit solvent ({solvation}), and it is not said what the model was trained in: "
                         'give environment="vacuum" (implicit solvent then stays) or environment="implicit solvent"')
    if solvated and not alone:
        raise ValueError(f"the System has implicit solvent ({solvation}), and the model was trained in {solvent} solvent: solvation would count "
                         "twice, and as it is no sum over pairs, the molecule's part of it cannot be taken out. Use a model that was trained in "
                         "vacuum, or a System without implicit solvent")
    return solvated


def _check_bonds(system, molecules, model, owner):
    pairs = (system.getConstraintParameters(index)[:2] for index in range(system.getNumConstraints()))
    bonds = {frozenset(pair) for pair in pairs}
    crossing = None
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            for index in range(force.getNumBonds()):
                first, second, *_ = force.getBondParameters(index)
                bonds.add(frozenset((first, second)))
                if (first in owner or second in owner) and owner.get(first) != owner.get(second):
                    crossing = crossing or (first, second)
    if crossing:
        warnings.warn(f"particles {crossing[0]} and {crossing[1]} are bonded, but only one of them is of the molecule. The bond stays. If it is "
                      "chemical, the flow is of a part of a molecule only", UserWarning, stacklevel=3)
    for molecule in molecules:
        here = {bond for bond in bonds if bond <= set(molecule)}
        missing = [(molecule[i], molecule[j]) for i, j in model.bonds if frozenset((molecule[i], molecule[j])) not in here]
        if here and missing:
            warn_of_order(missing)
            return


def _without_bonded_terms(system, owner, keep) -> openmm.System:
    """A copy without the bonded terms whose particles are all of one molecule. OpenMM's Forces cannot forget a term, their XML can."""
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(system))
    for element, force in zip(root.findall("./Forces/Force"), system.getForces(), strict=True):
        kind = element.get("type")
        if force.getName() in keep or kind not in _BONDED and kind != "NonbondedForce":
            continue
        if kind == "NonbondedForce":
            _remove_exception_offsets(element, force, owner)
            continue
        path, pattern = _BONDED[kind]
        groups = [{int(particle.get("p")) for particle in group} for group in element.findall("Groups/Group")]
        for parent in element.findall(path.split("/")[0]):
            for term in list(parent):
                indices = {int(value) for name, value in term.attrib.items() if re.fullmatch(pattern, name)}
                particles = set().union(*(groups[index] for index in indices)) if kind == "CustomCentroidBondForce" else indices
                if _is_internal(particles, owner):
                    parent.remove(term)
    return openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))


def _remove_exception_offsets(element, force, owner):
    """Exceptions within a molecule are set to zero, and no parameter may turn them on again."""
    for parent in element.findall("ExceptionOffsets"):
        for offset in list(parent):
            first, second, *_ = force.getExceptionParameters(int(offset.get("exception")))
            if _is_internal({first, second}, owner):
                parent.remove(offset)


def _is_internal(particles, owner) -> bool:
    owners = {owner.get(particle) for particle in particles}
    return len(owners) == 1 and None not in owners


def _pairs(molecules):
    return itertools.chain.from_iterable(itertools.combinations(molecule, 2) for molecule in molecules)


def _exclude_nonbonded(force, molecules):
    for first, second in _pairs(molecules):
        force.addException(first, second, 0.0, 1.0, 0.0, True)


def _exclude_gay_berne(force, molecules):
    for first, second in _pairs(molecules):
        force.addException(first, second, 1.0, 0.0, True)


def _exclude_custom_nonbonded(force, molecules):
    present = {frozenset(force.getExclusionParticles(index)) for index in range(force.getNumExclusions())}
    for pair in _pairs(molecules):
        if frozenset(pair) not in present:
            force.addExclusion(*pair)


def _exclude_hydrogen_bonds(force, molecules):
    present = {tuple(force.getExclusionParticles(index)) for index in range(force.getNumExclusions())}
    for molecule in map(set, molecules):
        def within(parameters):
            return {particle for particle in parameters[:3] if particle >= 0} <= molecule

        donors = [index for index in range(force.getNumDonors()) if within(force.getDonorParameters(index))]
        acceptors = [index for index in range(force.getNumAcceptors()) if within(force.getAcceptorParameters(index))]
        for pair in itertools.product(donors, acceptors):
            if pair not in present:
                force.addExclusion(*pair)


_EXCLUDE: dict[str, Callable] = {
    "NonbondedForce": _exclude_nonbonded, "GayBerneForce": _exclude_gay_berne, "CustomNonbondedForce": _exclude_custom_nonbonded,
    "CustomHbondForce": _exclude_hydrogen_bonds,
}


def _set_constraints(system, molecules, model, owner):
    """Make the constraints within the molecules those of the model."""
    missing = {frozenset((molecule[i], molecule[j])): (molecule[i], molecule[j], distance)
               for molecule in molecules for i, j, distance in model.constraints}
    for index in reversed(range(system.getNumConstraints())):
        first, second, _ = system.getConstraintParameters(index)
        if first not in owner and second not in owner:
            continue
        if owner.get(first) != owner.get(second):
            raise ValueError(f"particles {first} and {second} are constrained, but only one of them is of the molecule: a flow is of whole "
                             "molecules")
        wanted = missing.pop(frozenset((first, second)), None)
        if wanted is None:
            system.removeConstraint(index)
        else:
            system.setConstraintParameters(index, *wanted)
    for constraint in missing.values():
        system.addConstraint(*constraint)
