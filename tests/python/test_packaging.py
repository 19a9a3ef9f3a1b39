# SPDX-License-Identifier: MIT
"""The installed package: where its files are, what they need, and that OpenMM finds the plugin by itself."""
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import openmm
import pytest

import openmmflow

REPOSITORY = Path(__file__).parents[2]
PACKAGE = Path(openmmflow.__file__).parent
LIBRARIES = PACKAGE.parent / "OpenMM.libs" / "lib"
BINARIES = {
    "_bindings": PACKAGE / "_bindings.abi3.so",
    "library": LIBRARIES / "libOpenMMFlow.so",
    "plugin": LIBRARIES / "plugins" / "libOpenMMFlowReference.so",
}


def run(code, **environment):
    """Run Python code in a new interpreter in an environment without variables that could help; returns what it prints."""
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("LD_", "OPENMM", "PYTHON", "DYLD_"))}
    result = subprocess.run([sys.executable, "-c", code], env={**clean, **environment}, cwd="/", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def dynamic_section(path):
    """Needed libraries and run paths of a shared library."""
    text = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", text)
    run_paths = [entry for value in re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", text) for entry in value.split(":")]
    return needed, run_paths


@pytest.mark.parametrize("binary", BINARIES)
def test_libraries_find_each_other_wherever_they_are(binary):
    needed, run_paths = dynamic_section(BINARIES[binary])
    assert "libOpenMM.so" in needed
    assert run_paths and all(entry.startswith("$ORIGIN") for entry in run_paths)
    for name in set(needed) & {"libOpenMM.so", "libOpenMMFlow.so"}:
        places = [Path(entry.replace("$ORIGIN", str(BINARIES[binary].parent))) / name for entry in run_paths]
        assert any(place.exists() for place in places), f"{name} is in none of {run_paths}"


@pytest.mark.parametrize("binary", BINARIES)
def test_nothing_links_pytorch_or_python(binary):
    needed, _ = dynamic_section(BINARIES[binary])
    assert not [name for name in needed if re.search("torch|c10|python|cudart", name)]


def test_one_copy_of_the_library_is_loaded():
    maps = run("import openmmflow; print(open('/proc/self/maps').read())")
    assert {line.split()[-1] for line in maps.splitlines() if "libOpenMMFlow.so" in line} == {str(BINARIES["library"])}


def test_importing_openmm_is_enough(small_model):
    """A System with a FlowForce can be read and evaluated where nobody imports openmmflow or sets a variable."""
    system = openmm.System()
    for _ in range(6):
        system.addParticle(12.0)
    system.addForce(openmmflow.FlowForce(small_model))
    code = f"""
import sys, openmm
system = openmm.XmlSerializer.deserialize({openmm.XmlSerializer.serialize(system)!r})
context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
context.setPositions([[0, 0, 0], [.15, 0, 0], [.2, .14, 0], [.35, .14, .03], [.4, .28, .03], [.55, .28, .1]])
print(context.getState(energy=True).getPotentialEnergy()._value, "openmmflow" in sys.modules)
"""
    energy, imported = run(code).split()
    assert float(energy) < 1e6 and imported == "False"


def test_importing_openmmflow_needs_no_pytorch():
    loaded = run("import openmmflow, sys; print(sorted({name.partition('.')[0] for name in sys.modules}))")
    assert "'openmm'" in loaded and "'torch'" not in loaded and "'matplotlib'" not in loaded


def test_plugins_loaded():
    message = openmmflow.registration_message()
    assert "Reference" in message and "CPU" in message
    assert openmmflow.load_failures() == [] and openmmflow.version_mismatch() == ""
    for platform in ("Reference", "CPU"):
        assert openmmflow.why_not_supported(platform) == ""
    assert "Nowhere" in openmmflow.why_not_supported("Nowhere")


def test_without_the_compiled_part_the_rest_works():
    """As with another OpenMM whose library does not have what ours need: importing works, and says why when it matters."""
    code = """
import sys
sys.modules["openmmflow.bindings"] = None      # makes its import fail
import openmmflow, openmmflow.model_file
print(openmmflow.registration_message())
try:
    openmmflow.FlowForce
except ImportError as error:
    print(error)
try:
    openmmflow.nonsense
except AttributeError as error:
    print(error)
"""
    message, error, attribute_error = run(code).splitlines()
    assert "did not load" in message and openmm.Platform.getOpenMMVersion() in message and "openmm==8.6" in message
    assert "openmmflow.FlowForce is not available" in error and message in error
    assert attribute_error == "module 'openmmflow' has no attribute 'nonsense'"


def test_metadata():
    distribution = importlib.metadata.distribution("openmmflow")
    assert openmmflow.__version__ == distribution.version
    assert "openmm==8.6.*" in distribution.requires
    assert not [requirement for requirement in distribution.requires if requirement.startswith("torch")]
    scripts = {entry.name: entry.value for entry in distribution.entry_points if entry.group == "console_scripts"}
    assert scripts == {"openmmflow": "openmmflow.command_line:main"}
    assert distribution.metadata["License-Expression"] == "MIT"
    wheel = distribution.read_text("WHEEL")
    assert "cp310-abi3-" in wheel
    extras = {extra: [r.partition(";")[0].strip() for r in distribution.requires if re.search(f"extra == ['\"]{extra}['\"]", r)]
              for extra in distribution.metadata.get_all("Provides-Extra")}
    assert extras["training"] == ["openmmflow-training"]
    assert extras["cuda12"] == ["openmm[cuda12]==8.6.*"] and extras["cuda13"] == ["openmm[cuda13]==8.6.*"]
    assert {re.match("[a-z]+", requirement)[0] for requirement in extras["analysis"]} == {"tables", "pymbar", "ipykernel"}


def test_one_version():
    """CMakeLists.txt says it; what cannot read it there says the same. The format of model files has its own."""
    version = re.search(r"project\(OpenMMFlow VERSION ([0-9.]+)", (REPOSITORY / "CMakeLists.txt").read_text())[1]
    assert version == openmmflow.__version__ == importlib.metadata.version("openmmflow-training")
    assert f"\nversion: {version}\n" in (REPOSITORY / "CITATION.cff").read_text()
    assert f'version: "{version}"' in (REPOSITORY / "conda" / "recipe.yaml").read_text()
    assert f"\n## {version}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_sdist_holds_what_a_build_needs(tmp_path, monkeypatch):
    """All that git knows of the folders that CMake reads; nothing of the others that are not meant for it."""
    backend = pytest.importorskip("scikit_build_core.build", reason="scikit-build-core makes the sdist")
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    monkeypatch.chdir(REPOSITORY)
    name = backend.build_sdist(str(tmp_path))
    with tarfile.open(tmp_path / name) as archive:
        held = {member.partition("/")[2] for member in archive.getnames()}
    folders = ["CMakeLists.txt", "pyproject.toml", "LICENSE", "README.md", "cmake", "flow", "openmmapi", "platforms", "serialization",
               "python", "training"]
    known = subprocess.run(["git", "ls-files", "--", *folders], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split("\n")
    assert len(known) > 100 and not set(filter(None, known)) - held
    assert not [path for path in held if path.split("/")[0] in (".ci", "build", "runs", ".venv", "dist")]


def test_training_sdist_holds_what_a_build_needs(tmp_path):
    """One folder with its own pyproject.toml, whose paths lead to what CMake reads."""
    pytest.importorskip("build", reason="build makes the sdist")
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    subprocess.run([sys.executable, REPOSITORY / "tools" / "training_sdist.py", tmp_path], check=True, capture_output=True)
    archive, = tmp_path.glob("openmmflow_training-*.tar.gz")
    with tarfile.open(archive) as file:
        held = {member.partition("/")[2] for member in file.getnames()}
        root = file.getnames()[0].partition("/")[0]
        settings = file.extractfile(f"{root}/pyproject.toml").read().decode()
        metadata = file.extractfile(f"{root}/PKG-INFO").read().decode()
    assert f"\nVersion: {openmmflow.__version__}\n" in metadata and "\nName: openmmflow-training\n" in metadata
    assert ".." not in settings.replace('"..."', "") and "training/pyproject.toml" not in held
    for path in ("CMakeLists.txt", "LICENSE", "flow/CMakeLists.txt", "training/CMakeLists.txt", "training/openmmflow_training/__init__.py"):
        assert path in held
    assert 'packages = ["training/openmmflow_training"]' in settings and 'input = "CMakeLists.txt"' in settings


def test_conda_recipe_renders():
    rattler_build = pytest.importorskip("rattler_build", reason="py-rattler-build renders the recipe")
    recipe = rattler_build.Stage0Recipe.from_file(REPOSITORY / "conda" / "recipe.yaml")
    variants = recipe.render(rattler_build.VariantConfig.from_yaml("python: ['3.12.* *_cpython']\ncxx_compiler: [gxx]\nc_stdlib: [sysroot]\n"))
    assert [variant.recipe.package.name for variant in variants] == ["openmmflow"]
    requirements = str(recipe.to_dict()["requirements"]["run"])
    for requirement in importlib.metadata.requires("openmmflow"):
        name = re.match("[A-Za-z0-9_-]+", requirement)[0]
        assert "extra ==" in requirement or name in requirements, f"the recipe does not run with {name}"


def test_smoke():
    """The test of releases, on what is installed here."""
    text = subprocess.run([sys.executable, REPOSITORY / "tests" / "smoke.py"], check=True, capture_output=True, text=True, cwd="/").stdout
    assert " works: " in text


def test_interface_has_types():
    """Every argument and every result of what ``import openmmflow`` gives; the stubs of type checkers are these annotations."""
    for name in openmmflow.__all__:
        thing = getattr(openmmflow, name)
        members = vars(thing) if inspect.isclass(thing) else {name: thing}
        for key, member in members.items():
            function = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
            if inspect.isfunction(function) and (key == "__init__" or not key.startswith("_")):
                signature = inspect.signature(function)
                untyped = [p.name for p in signature.parameters.values() if p.name not in ("self", "cls") and p.annotation is p.empty]
                assert not untyped and (key == "__init__" or signature.return_annotation is not signature.empty), (name, key, untyped)


def test_type_stubs(tmp_path):
    """The stubs say what SWIG has made, and the types of the package reach who checks his own program."""
    pytest.importorskip("mypy", reason="mypy checks types")
    (tmp_path / "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\n")
    (tmp_path / "allowed").write_text(r"openmmflow\.bindings\.\w+\.__swig_destroy__" "\n")
    result = subprocess.run([sys.executable, "-m", "mypy.stubtest", "openmmflow.bindings", "--mypy-config-file", "mypy.ini", "--allowlist", "allowed"],
                            cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    (tmp_path / "program.py").write_text('''
import openmmflow
model = openmmflow.FlowModel.load("model.safetensors")
force = openmmflow.FlowForce(model)
reveal_type(force.getModel())
reveal_type(openmmflow.FlowMonteCarlo)
reveal_type(model.to_bytes())
force.addMolecule(3)
''')
    text = subprocess.run([sys.executable, "-m", "mypy", "program.py"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert '"openmmflow._flow_model.FlowModel"' in text and "def (model: openmmflow._flow_model.FlowModel" in text and '"bytes"' in text
    assert 'program.py:8: error: Argument 1 to "addMolecule" of "FlowForce" has incompatible type "int"' in text


def test_package_data():
    for name in ("py.typed", "bindings.pyi", "data/alanine_dipeptide.pdb", "data/alanine_dipeptide.safetensors"):
        assert (PACKAGE / name).is_file(), name
    assert not list(PACKAGE.rglob("*.i")) and not list(PACKAGE.rglob("*.cpp"))


def test_headers_are_installed():
    include = PACKAGE.parent / "OpenMM.libs" / "include" / "openmmflow"
    assert (include / "OpenMMFlow.h").is_file() and (include / "model" / "FlowModel.h").is_file()


def test_command_is_installed():
    script = Path(sys.executable).parent / "openmmflow"
    text = subprocess.run([script, "--help"], check=True, capture_output=True, text=True, cwd="/").stdout
    for verb in ("demo", "info", "import", "simulate", "train"):
        assert verb in text


def test_no_path_of_the_build_is_left():
    root = str(Path(__file__).parents[2]).encode()
    for path in BINARIES.values():
        assert root not in path.read_bytes(), path.name


def test_docstrings_reach_help():
    text = run("import openmmflow; help(openmmflow.FlowForce)")
    for phrase in ("k_B T ln p", "addMolecule(self, particles", "getLogProbs(self, context", "updateParametersInContext"):
        assert phrase in text
