# SPDX-License-Identifier: MIT
"""The documentation: the site builds without a warning, messages that it quotes exist, and its examples run."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("flow", "openmmapi", "platforms", "serialization", "python", "training")
# Messages of OpenMM itself.
FOREIGN = {"Particle coordinate is NaN"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built with warnings as errors."""
    pytest.importorskip("mkdocstrings", reason="MkDocs, mkdocs-material and mkdocstrings build the site")
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder], cwd=REPOSITORY, text=True,
                            capture_output=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert result.returncode == 0, result.stderr
    return folder


def test_formulas_are_drawn(site):
    pages = {path.stem: path.read_text() for path in site.glob("*.html")}
    assert pages["theory"].count("<math ") > 40
    for name, text in pages.items():
        assert "arithmatex" not in text, f"a formula of {name} is left as TeX"


def test_whole_interface_is_documented(site):
    """Every public method of the two classes, and of the package, has an entry with a description."""
    import openmmflow

    text = (site / "api" / "python.html").read_text()
    names = {f"openmmflow.{name}" for name in openmmflow.__all__ if name != "FlowMonteCarlo"}
    names |= {f"openmmflow.{kind.__name__}.{name}" for kind in (openmmflow.FlowForce, openmmflow.FlowModel, openmmflow.FlowReporter)
              for name in vars(kind) if not name.startswith("_")}
    assert len(names) > 50
    assert not [name for name in sorted(names) if f'id="{name}"' not in text]


def test_cpp_interface_is_documented(site):
    """Each method of the headers of force and model has a heading and its declaration, whatever reads them."""
    text = (site / "api" / "cpp.html").read_text()
    for header in ("openmmapi/include/FlowForce.h", "flow/model/FlowModel.h"):
        public = re.search(r"^public:(.*?)^(?:protected|private):", (REPOSITORY / header).read_text(), re.DOTALL | re.MULTILINE)[1]
        methods = re.findall(r"^    [\w:<> &]*?[ &](\w+)\(", re.sub(r"/\*\*.*?\*/", "", public, flags=re.DOTALL), re.MULTILINE)
        assert len(methods) > 15
        for name in set(methods) - {"FlowForce", "FlowModel"}:
            assert re.search(f'<h4 id="{name.lower()}', text), name
            assert re.search(rf">{name}</span>\s*(?:<[^>]*>)*\(", text), name
    assert "@param" not in text and "::: cpp" not in text


def test_comments_of_cpp_tell_the_truth(tmp_path, monkeypatch):
    """A parameter that is none, a name that is not declared, and a header that does not compile stop the build of the site."""
    pytest.importorskip("clang.cindex", reason="libclang reads the headers")
    errors = pytest.importorskip("mkdocs.exceptions", reason="MkDocs builds the site")
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools" / "documentation"))
    import cpp_api

    (tmp_path / "right.h").write_text("/**\n * Twice a < b_c.\n *\n * @param x  in nm,\n *           finite\n */\ndouble twice(double x) {\n    return 2*x;\n}\n")
    (tmp_path / "wrong.h").write_text("/** @param y  none */\ndouble twice(double x);\n")
    (tmp_path / "broken.h").write_text("double twice(Number x);\n")
    config = type("Config", (), {"config_file_path": str(tmp_path / "mkdocs.yml")})
    text = cpp_api.on_page_markdown("before\n\n::: cpp right.h twice\n", config=config)
    assert "```cpp\ndouble twice(double x);\n```" in text and r"Twice a \< b\_c." in text and "| `x` | in nm, finite |" in text
    for directive, message in (("wrong.h twice", "has no parameter 'y'"), ("right.h thrice", "does not declare thrice"),
                               ("broken.h twice", "does not compile: .*Number")):
        with pytest.raises(errors.PluginError, match=message):
            cpp_api.on_page_markdown(f"::: cpp {directive}", config=config)
    cpp_api.on_post_build()


# What programs have no reason to import: the command line, and what only `./dev certify`, `./dev bench` and the demo run.
INTERNAL = {"atomic", "benchmark", "certify", "command_line", "crossings", "data", "demo", "hashes", "importers", "stationarity"}


def test_every_module_is_documented():
    """Public modules of the package stand on the page of modules, or are internal."""
    text = (REPOSITORY / "docs" / "api" / "modules.md").read_text()
    named = {name.partition(".")[0] for name in re.findall(r"^::: openmmflow\.([\w.]+)$", text, re.MULTILINE)}
    package = REPOSITORY / "python" / "openmmflow"
    public = {path.stem for path in package.iterdir() if not path.name.startswith("_") and path.suffix in (".py", "")}
    assert public - named - INTERNAL == set(), "add the module to docs/api/modules.md"


def test_pages_load_nothing_from_elsewhere(site):
    for path in site.rglob("*.html"):
        assert not re.search(r"""<(?:script|img|link)[^>]*(?:src|href)=["']?(?:https?:)?//""", path.read_text()), path.name


def messages() -> list[str]:
    text = (REPOSITORY / "docs" / "errors.md").read_text()
    return re.findall(r"^### `(.*)`$", text, re.MULTILINE)


@pytest.fixture(scope="module")
def source_text() -> str:
    """All sources, string literals that are split over lines or by values put together."""
    texts = []
    for folder in SOURCES:
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix in (".cpp", ".h", ".py", ".i"):
                texts.append(re.sub(r'"\s*\\?\n?\s*(?:\+|<<)?\s*f?"', "", path.read_text()).replace('\\"', '"'))
    return "\n".join(texts)


def test_there_are_messages():
    assert len(messages()) >= 30


@pytest.mark.parametrize("message", messages())
def test_quoted_messages_exist(message, source_text):
    if message in FOREIGN:
        return
    fragments = [fragment.strip(" ,'") for fragment in message.split("…")]
    assert max(map(len, fragments)) > 12, "too short to say anything"
    for fragment in fragments:
        assert fragment in source_text, f"no source has {fragment!r}"


def test_five_minute_start(tmp_path, monkeypatch, capsys):
    """The Python of the page, one block after the other."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "start.md").read_text(), re.DOTALL)
    namespace = {}
    for block in blocks:
        exec(compile(block, "start.md", "exec"), namespace)
    assert len(blocks) == 2 and len((tmp_path / "flow.csv").read_text().splitlines()) == 11
    assert namespace["gradient"].shape == (1000, 22, 3)
