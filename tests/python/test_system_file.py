# SPDX-License-Identifier: MIT
import openmm
import pytest

from openmmflow.system_file import read_system


def test_a_system_comes_back(tmp_path):
    system = openmm.System()
    system.addParticle(12.0)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    assert read_system(tmp_path / "system.xml").getNumParticles() == 1


@pytest.mark.parametrize("text, message", [
    ("# Read me\n", "is not the XML of an OpenMM System"),
    (openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001)), "holds a VerletIntegrator, not a System"),
])
def test_anything_else_is_told(tmp_path, text, message):
    path = tmp_path / "other.xml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_system(path)
