# SPDX-License-Identifier: MIT
"""A flow of some of a molecule's particles: data and topology of a subset.

The density of a subset of particles, all others integrated out, is -U/k_BT of their potential of mean force, up to a constant.
So a flow that is trained on the subset's positions is a coarse-grained force field, and FlowForce runs dynamics in it. Forces
on the chosen particles serve force matching as they are: their mean at given positions of the subset is the mean force (Noid et
al., J. Chem. Phys. 128, 244114 (2008); the data must have no constraints), and what they scatter about it is noise, which the
loss averages out. examples/coarse_graining.py runs all of it.
"""
from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from openmm import app

from ._units import as_indices


def heavy_atoms(topology: app.Topology) -> list[int]:
    """Indices of all atoms but hydrogens."""
    return [atom.index for atom in topology.atoms() if atom.element is not None and atom.element.symbol != "H"]


def subset_topology(topology: app.Topology, particles) -> app.Topology:
    """The chosen atoms, in the order of the topology, with the bonds between them.

    Raises ValueError when the bonds do not connect them: a flow is of one molecule.
    """
    chosen = _chosen(particles, topology.getNumAtoms())
    subset, copies = app.Topology(), {}
    for chain in topology.chains():
        new_chain = subset.addChain(chain.id)
        for residue in chain.residues():
            atoms = [atom for atom in residue.atoms() if atom.index in chosen]
            if atoms:
                new_residue = subset.addResidue(residue.name, new_chain, residue.id)
                for atom in atoms:
                    copies[atom.index] = subset.addAtom(atom.name, atom.element, new_residue)
    reached = {}
    for first, second in topology.bonds():
        if first.index in copies and second.index in copies:
            subset.addBond(copies[first.index], copies[second.index])
            reached.setdefault(first.index, []).append(second.index)
            reached.setdefault(second.index, []).append(first.index)
    seen, queue = {chosen[0]}, [chosen[0]]
    while queue:
        new = set(reached.get(queue.pop(), ())) - seen
        seen |= new
        queue += new
    if len(seen) < len(chosen):
        raise ValueError(f"the bonds connect {len(seen)} of the {len(chosen)} chosen atoms; choose the atoms between them, too")
    return subset


def subset_dataset(source, target, particles) -> Path:
    """Write the data set of a subset of particles: positions and forces of these, in ascending order; energies stay those of
    all.

    ``source`` is a data set of ``openmmflow.dataset``, ``target`` the file to write. Raises ValueError for particles that are
    not there.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    with h5py.File(source, "r", locking=False) as old, h5py.File(temporary, "w") as new:
        count = min(len(old["positions"]), len(old["forces"]), len(old["energies"]))
        chosen = _chosen(particles, old["positions"].shape[1])
        for name in ("positions", "forces"):
            new.create_dataset(name, data=old[name][:count][:, chosen])
        new["energies"] = old["energies"][:count]
        new.attrs["description"] = json.dumps({**json.loads(old.attrs["description"]), "particles": chosen})
    temporary.replace(target)
    return target


def _chosen(particles, total: int) -> list[int]:
    chosen = sorted(as_indices(particles, "particles"))
    if len(chosen) < 3 or len(set(chosen)) < len(chosen) or chosen[0] < 0 or chosen[-1] >= total:
        raise ValueError(f"expected at least three different particles from 0 to {total - 1}, got {chosen}")
    return chosen


def torsion_free_energy(phi, *, bins: int = 36) -> tuple[np.ndarray, np.ndarray]:
    """-ln of the histogram of a torsion (radian), k_BT, lowest value 0, nan where it is empty; and the bins' centres in
    degrees.
    """
    counts, edges = np.histogram(np.degrees(phi), bins=bins, range=(-180, 180))
    with np.errstate(divide="ignore"):
        values = np.where(counts > 0, -np.log(counts / counts.max()), np.nan)
    return values, 0.5 * (edges[1:] + edges[:-1])
