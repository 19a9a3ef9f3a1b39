# SPDX-License-Identifier: MIT
"""The molecules of a topology: connected components of its bonds."""
from __future__ import annotations

import numpy as np
from openmm import app


def molecules(topology: app.Topology) -> list[list[int]]:
    """The particles of every molecule, in ascending order, molecules by their first particle."""
    neighbours = [[] for _ in range(topology.getNumAtoms())]
    for first, second in topology.bonds():
        neighbours[first.index].append(second.index)
        neighbours[second.index].append(first.index)
    found, seen = [], set()
    for start in range(len(neighbours)):
        if start not in seen:
            members = [start]
            seen.add(start)
            for atom in members:
                new = [other for other in neighbours[atom] if other not in seen]
                seen.update(new)
                members += new
            found.append(sorted(members))
    return found


def copies(topology: app.Topology, atom: int | None = None) -> list[list[int]]:
    """All copies of one molecule: lists of particles in the same order.

    Parameters
    ----------
    atom : index of an atom of the molecule; needed if the topology has molecules of different kinds.

    Raises
    ------
    ValueError : molecules of different kinds and no atom; an atom that does not exist.
    """
    kinds = {}
    atoms = list(topology.atoms())
    bonds = {frozenset((a.index, b.index)) for a, b in topology.bonds()}
    bonds_of = {}
    for bond in bonds:
        bonds_of.setdefault(min(bond), []).append(max(bond))
    everything = molecules(topology)
    for members in everything:
        place = {atom: index for index, atom in enumerate(members)}
        elements = tuple(atoms[i].element.symbol if atoms[i].element else atoms[i].name for i in members)
        pairs = tuple(sorted((place[i], place[j]) for i in members for j in bonds_of.get(i, ())))
        kinds.setdefault((elements, pairs), []).append(members)
    if atom is None:
        if len(kinds) == 1:
            return everything
        names = ", ".join(f"{len(group)} of {len(group[0])} atoms with atom {group[0][0]} ({atoms[group[0][0]].residue.name})"
                          for group in kinds.values())
        raise ValueError(f"the topology has molecules of {len(kinds)} kinds: {names}. Say which one the flow is of by an atom of it "
                         "(molecule_atom), or, if these should be one molecule, complete the bonds (CONECT records of a PDB file)")
    for group in kinds.values():
        if any(atom in members for members in group):
            return group
    raise ValueError(f"there is no atom {atom}; atoms count from 0 to {len(atoms) - 1}")


def subset(topology: app.Topology, members: list[int]) -> app.Topology:
    """The topology of some particles alone, in ascending order."""
    result, chosen, new = app.Topology(), set(members), {}
    for chain in topology.chains():
        new_chain = None
        for residue in chain.residues():
            new_residue = None
            for atom in residue.atoms():
                if atom.index in chosen:
                    new_chain = new_chain or result.addChain(chain.id)
                    new_residue = new_residue or result.addResidue(residue.name, new_chain, residue.id, residue.insertionCode)
                    new[atom.index] = result.addAtom(atom.name, atom.element, new_residue)
    for first, second in topology.bonds():
        if first.index in new and second.index in new:
            result.addBond(new[first.index], new[second.index])
    return result


def whole(positions, bonds, box) -> np.ndarray:
    """Molecules made whole: every atom is put at that periodic image which is nearest to an atom that it is bonded to.

    Parameters
    ----------
    positions : (frames, particles, 3), nm, of one molecule.
    bonds : pairs of particles that connect it.
    box : periodic box vectors, (frames, 3, 3) in nm, in rows, in the reduced form that OpenMM and MDTraj use.
    """
    positions = np.array(positions, dtype=float)
    box = np.asarray(box, dtype=float)
    neighbours = [[] for _ in range(positions.shape[1])]
    for i, j in bonds:
        neighbours[i].append(j)
        neighbours[j].append(i)
    placed = [0]
    seen = {0}
    for atom in placed:
        for other in neighbours[atom]:
            if other not in seen:
                seen.add(other)
                placed.append(other)
                difference = positions[:, other] - positions[:, atom]
                for axis in (2, 1, 0):    # the order of reduced boxes
                    turns = np.round(difference[:, axis] / box[:, axis, axis])
                    difference -= turns[:, None] * box[:, axis]
                positions[:, other] = positions[:, atom] + difference
    return positions
