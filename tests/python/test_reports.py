# SPDX-License-Identifier: MIT
"""The pages about runs and samples: complete, self-contained, and with the numbers that the files hold."""
import base64
import re

import openmmflow
from openmmflow import dataset, reweighting, run_report, sample_report, sampling, shipped, simulate
from openmmflow.html_page import HtmlPage
from openmmflow.stored_run import Settings


def check(text: str) -> list[str]:
    """Titles of a page; its pictures are PNG files, and nothing comes from elsewhere."""
    assert "<script" not in text and not re.search("(?:src|href)=['\"]?http", text)
    pictures = re.findall('src="data:image/png;base64,([^"]*)"', text)
    assert pictures and all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    return re.findall("<h2>([^<]*)</h2>", text)


def test_page_escapes_what_it_is_given(tmp_path):
    page = HtmlPage("a < b")
    page.paragraph("<script>")
    page.table([("x & y", 1)], header=("<", "&"))
    page.record("Record", {"key": "<b>"})
    text = page.write(tmp_path / "page.html").read_text()
    assert "<h1>a &lt; b</h1>" in text and "&lt;script&gt;" in text and "<td>x &amp; y</td><td>1</td>" in text and "&lt;b&gt;" in text


def test_run(tmp_path):
    molecule = simulate.flow_molecule(shipped.MODEL, shipped.STRUCTURE)
    settings = Settings(ensemble="nve", report_interval=5, trajectory_interval=5)
    pages = []
    assert simulate.simulate(tmp_path / "run", molecule, settings, 100, equilibration_steps=200, progress=False,
                             at_end=lambda run: pages.append((run_report.write(run), run.energies())))
    path, energies = pages[0]
    text = path.read_text()
    titles = check(text)
    assert path == tmp_path / "run" / "report.html" and len(titles) == 9
    for word in ("Energies", "Energy conservation", "What the flow thinks of the frames", "Backbone torsions", "The model"):
        assert word in titles
    assert f"<td>{energies.potential.mean():.3f}</td>" in text and "<td>nve</td>" in text and "<svg" in text


def test_samples(tmp_path):
    model = openmmflow.FlowModel.load(shipped.MODEL)
    pdb = dataset.alanine_dipeptide()
    system = dataset.implicit_solvent_system(pdb.topology)
    for name, weighted in (("samples.h5", True), ("plain.dcd", False)):
        sampling.sample(tmp_path / name, model, 400, system=system if weighted else None, topology=pdb.topology, progress=False)
        path = sample_report.write(tmp_path / name, model, pdb.topology if weighted else None)
        text = path.read_text()
        titles = check(text)
        assert path.suffix == ".html" and ("Weights" in titles) == weighted and ("Backbone torsions" in titles) == weighted
        assert len([title for title in titles if title.startswith(("Bonds", "Angles", "Torsions"))]) == 3
    stored = sampling.read(tmp_path / "samples.h5")
    text = (tmp_path / "samples.html").read_text()
    assert f"{reweighting.quality(stored.log_weights).effective_samples:,.0f}" in text
