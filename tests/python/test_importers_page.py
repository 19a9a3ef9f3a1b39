# SPDX-License-Identifier: MIT
"""docs/importers.md: the example of an exporter runs and agrees with what it exports."""
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "importers.md"


def test_the_exporter_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block, = [block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "model_file.write" in block]
    namespace = {}
    exec(compile(block, "importers.md", "exec"), namespace)
    assert namespace["model"].num_particles == 3
