# SPDX-License-Identifier: MIT
"""The command ``openmmflow``."""
from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from .benchmark.command import add_options as add_benchmark_options

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C stopped, as shells have it."""


def main(arguments=None) -> int:
    """Run one command; the exit status: 0, 1 after an error, 2 for wrong usage, 130 after Ctrl-C."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "train":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("openmmflow: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing may be written any more, at exit neither.
        sys.stderr.close()
        return 1
    except Exception as error:
        if options.traceback:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"openmmflow: error: {message}", file=sys.stderr)
        return 1


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults where they say something."""

    def _get_help_string(self, action):
        silent = action.required or action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    formats = {"formatter_class": _HelpFormatter}
    parser = argparse.ArgumentParser(
        prog="openmmflow", allow_abbrev=False, description="Trained normalizing flows as potentials for molecular dynamics with OpenMM.")
    parser.add_argument("--version", action="version", version=f"openmmflow {version('openmmflow')}")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", **formats, help="run alanine dipeptide in the shipped model, next to its force field",
                               description="Molecular dynamics of alanine dipeptide in the shipped model and in amber99sbildn + OBC: "
                                           "NVT, then NVE; prints a table, writes ramachandran.png and energy_conservation.png.")
    demo.add_argument("-o", "--output", type=Path, default=Path("runs/demo"), help="folder for plots and trajectories")
    demo.add_argument("--model", type=Path, default=argparse.SUPPRESS, help="another model of the molecule than the shipped one")
    demo.add_argument("--nvt-steps", type=_count, default=60_000, help="of 1 fs")
    demo.add_argument("--nve-steps", type=_count, default=20_000, help="of 1 fs")
    demo.add_argument("--seed", type=_count, default=1, help="of everything random")
    demo.add_argument("--platform", default="Reference", help="OpenMM platform")
    _add_quiet(demo)
    demo.set_defaults(run=_demo)

    info = commands.add_parser("info", **formats, help="show what is installed and what a model file holds")
    info.add_argument("model", nargs="?", type=Path, help="a model file; without one, the installation is described")
    info.add_argument("--platforms", action="store_true", help="show on which of OpenMM's platforms FlowForce runs")
    info.set_defaults(run=_info)

    importer = commands.add_parser("import", **formats, help="turn a bgflow checkpoint into a model file")
    importer.add_argument("checkpoint", type=Path, help="a PyTorch Lightning checkpoint, or a state_dict")
    importer.add_argument("--spec", type=Path, required=True, help="JSON file that says what the checkpoint does not (docs/usage.md)")
    importer.add_argument("-o", "--output", type=Path, required=True, help="the model file to write")
    importer.set_defaults(run=_import)

    simulate = commands.add_parser(
        "simulate", **formats, help="run dynamics of one molecule in the potential of a model",
        description="Run dynamics and write trajectory.dcd, energies.csv, checkpoint.bin and plots. When the folder holds a run "
                    "with the same settings, it goes on where that one stopped; with more --steps, a finished run is prolonged.")
    simulate.add_argument("model", type=Path, help="the model file")
    simulate.add_argument("--pdb", type=Path, required=True, help="the molecule, its atoms in the model's order")
    simulate.add_argument("--ensemble", choices=("nvt", "nve"), default="nvt", help="constant temperature (LangevinMiddle) or energy (Verlet)")
    simulate.add_argument("--steps", type=_count, required=True, help="of the run in all, what the folder holds included")
    simulate.add_argument("--platform", default="Reference", help="OpenMM platform")
    simulate.add_argument("--precision", choices=("single", "mixed", "double"), default=None, help="on platforms that have the choice")
    simulate.add_argument("-o", "--output", type=Path, required=True, help="the folder of the run")
    simulate.add_argument("--step-size", type=_positive, default=1.0, metavar="FS", help="in fs")
    simulate.add_argument("--temperature", type=_positive, default=None, metavar="K",
                          help="of the thermostat and of the first velocities, in K; the temperature of the model if not given")
    simulate.add_argument("--friction", type=_not_negative, default=1.0, metavar="1/PS", help="of the thermostat, in 1/ps")
    simulate.add_argument("--scale", type=float, default=1.0, metavar="LAMBDA", help="factor of the potential")
    simulate.add_argument("--seed", type=_count, default=1, help="of everything random")
    simulate.add_argument("--equilibration-steps", type=int, default=5000, metavar="N",
                          help="of 1 fs, Langevin dynamics with strong friction between the minimization and the run")
    simulate.add_argument("--report-interval", type=_count, default=100, metavar="STEPS", help="between lines of energies.csv")
    simulate.add_argument("--trajectory-interval", type=_count, default=1000, metavar="STEPS", help="between frames of trajectory.dcd")
    simulate.add_argument("--checkpoint-seconds", type=_positive, default=10.0, metavar="S", help="between checkpoints")
    simulate.add_argument("--overwrite", action="store_true", help="discard the run that the folder holds")
    _add_quiet(simulate)
    simulate.set_defaults(run=_simulate)

    check = commands.add_parser(
        "check", **formats, help="find out whether dynamics can trust a model",
        description="Physical checks of a model on its own samples: forces, round trip, platforms, continuity at edges and seams, and "
                    "energy conservation at several step sizes. Writes an HTML page with figures and plots, and JSON. The exit "
                    "status is 0 if all figures are within their bounds, 1 otherwise.")
    check.add_argument("model", type=Path, help="the model file")
    check.add_argument("-o", "--output", type=Path, default=Path("check.html"), help="the page to write; the JSON file lies beside it")
    check.add_argument("--pdb", type=Path, default=argparse.SUPPRESS,
                       help="the molecule, for its masses; without it, they are guessed from the bonds")
    check.add_argument("--step-size", type=_positive, default=1.0, metavar="FS", help="that dynamics shall use, in fs")
    check.add_argument("--starts", type=_count, default=4, help="of constant-energy runs")
    check.add_argument("--length", type=_positive, default=2.0, metavar="PS", help="of each of these runs, in ps")
    check.add_argument("--seed", type=_count, default=1, help="of everything random")
    _add_quiet(check)
    check.set_defaults(run=_check)

    sample = commands.add_parser(
        "sample", **formats, help="draw independent samples of a model, with weights for a force field",
        description="Write independent samples of a model, their ln p and, with a System, potential energies and log weights; prints what the "
                    "weights are worth. An interrupted command goes on when it is given again, and an HDF5 file is prolonged by more samples.")
    sample.add_argument("model", type=Path, help="the model file")
    sample.add_argument("-n", "--count", type=_count, required=True, help="samples in all")
    sample.add_argument("-o", "--output", type=Path, required=True, help="FILE.h5 (which MDTraj reads), or FILE.dcd with FILE.npz beside it")
    sample.add_argument("--system", type=Path, default=None, help="serialized System of the molecule, for energies and weights")
    sample.add_argument("--temperature", type=_positive, default=None, metavar="K", help="of the weights, in K; the temperature of the model if not given")
    sample.add_argument("--pdb", type=Path, default=None, help="the molecule in the model's order, for the names of atoms")
    sample.add_argument("--gradients", action="store_true", help="store d ln p/dx, too")
    sample.add_argument("--platform", default="Reference", help="OpenMM platform of the energies")
    sample.add_argument("--seed", type=int, default=0, help="of everything random")
    _add_quiet(sample)
    sample.set_defaults(run=_sample)

    dataset = commands.add_parser(
        "dataset", **formats, help="make training data by replica exchange, and judge it",
        description="Make, or go on with, training data of a molecule by temperature replica exchange, with forces, and print how good it is: "
                    "statistical inefficiencies, populations, agreement of runs. Without a PDB file: the kind of data that the shipped model "
                    "was trained on, alanine dipeptide.")
    dataset.add_argument("topology", nargs="?", type=Path, default=None,
                         help="PDB file of the molecule, with its bonds and all hydrogens; alanine dipeptide if not given")
    dataset.add_argument("-o", "--output", type=Path, default=None, help="HDF5 file; an existing one is continued")
    dataset.add_argument("--frames", type=_count, default=50_000, help="of the file in all")
    dataset.add_argument("--seed", type=_count, default=1, help="of everything random")
    dataset.add_argument("--force-field", nargs="+", default=["amber99sbildn.xml", "amber99_obc.xml"], metavar="NAME", help="of OpenMM's files")
    dataset.add_argument("--system", type=Path, default=None, metavar="XML", help="a serialized System instead of a force field")
    dataset.add_argument("--constraints", choices=("none", "HBonds", "AllBonds", "HAngles"), default="none", help="of the force field")
    dataset.add_argument("--temperature", type=_positive, default=300.0, metavar="K", help="of the data")
    dataset.add_argument("--highest-temperature", type=_positive, default=600.0, metavar="K", help="of the hottest replica")
    dataset.add_argument("--replicas", type=_count, default=4, help="temperatures")
    dataset.add_argument("--proposals", type=Path, default=None, metavar="MODEL", help="a flow of the molecule proposes conformations: populations "
                         "converge fast, and the data stay those of the force field; then one replica is enough")
    dataset.add_argument("--moves", type=_count, default=20, help="that the flow proposes before each frame")
    dataset.add_argument("--step-size", type=_positive, default=1.0, metavar="FS", help="in fs")
    dataset.add_argument("--friction", type=_not_negative, default=20.0, metavar="1/PS", help="in 1/ps; high friction makes frames independent")
    dataset.add_argument("--frame-steps", type=_count, default=250, metavar="STEPS", help="between frames")
    dataset.add_argument("--quality", nargs="+", type=Path, default=None, metavar="DATA", help="make nothing: judge these data sets together")
    _add_quiet(dataset)
    dataset.set_defaults(run=_dataset)

    benchmark = commands.add_parser("benchmark", **formats, help="time FlowForce next to PyTorch and the force field",
                                    description="Time FlowForce on this machine next to the same flow in PyTorch and to amber99sbildn "
                                                "+ OBC, and compare single with double precision; writes JSON and plots.")
    add_benchmark_options(benchmark)
    benchmark.set_defaults(run=_benchmark)

    train = commands.add_parser("train", add_help=False, help="train a model (needs the package openmmflow_training)")
    train.set_defaults(run=_train)
    return parser


def _add_quiet(parser):
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


# The commands import what they need when they run: `openmmflow --help` answers at once, and `openmmflow info` also where
# OpenMM and the plugin do not fit together.

def _demo(options) -> int:
    from .demo import demo, table
    from .simulate import InterruptFlag

    with InterruptFlag() as stop:
        results = demo(options.output, model=getattr(options, "model", None), nvt_steps=options.nvt_steps,
                       nve_steps=options.nve_steps, seed=options.seed, platform=options.platform,
                       progress=not options.quiet, stop=stop)
    if results is None:
        print("openmmflow: interrupted", file=sys.stderr)
        return INTERRUPTED
    print(f"\nalanine dipeptide, {options.nvt_steps / 1000:g} ps NVT at 300 K and {options.nve_steps / 1000:g} ps NVE, "
          f"1 fs steps, platform {options.platform}\n")
    print(table(results))
    print(f"\nplots: {options.output / 'ramachandran.png'}, {options.output / 'energy_conservation.png'}")
    return 0


def _info(options) -> int:
    from . import info

    parts = []
    if options.model is not None:
        parts.append(info.describe_model(options.model))
    if options.model is None:
        parts.append(info.describe_installation())
    if options.platforms or options.model is None:
        parts.append(info.describe_platforms())
    print("\n\n".join(parts))
    return 0


def _import(options) -> int:
    from .importers.bgflow import import_checkpoint
    from .info import describe_model

    import_checkpoint(options.checkpoint, options.spec, options.output)
    print(describe_model(options.output))
    return 0


def _simulate(options) -> int:
    from . import FlowModel, run_report
    from .simulate import InterruptFlag, bonds_disagree, describe_support_exits, flow_molecule, simulate, summary
    from .stored_run import Settings, discard

    model = FlowModel.load(options.model)
    molecule = flow_molecule(options.model, options.pdb, scale=options.scale)
    settings = Settings(
        ensemble=options.ensemble, step_size=options.step_size, temperature=options.temperature or model.temperature,
        friction=options.friction, seed=options.seed, report_interval=options.report_interval,
        trajectory_interval=options.trajectory_interval, platform=options.platform, precision=options.precision)
    disagreement = bonds_disagree(model, molecule.topology)
    if disagreement:
        print(f"openmmflow: warning: {disagreement}. Are the atoms in the model's order?", file=sys.stderr)
    if options.overwrite:
        discard(options.output)
    found = {}

    def look(run):
        found.update(exits=describe_support_exits(run), report=run_report.write(run))

    with InterruptFlag() as stop:
        complete = simulate(options.output, molecule, settings, options.steps, equilibration_steps=options.equilibration_steps,
                            progress=not options.quiet, stop=stop, label=options.ensemble.upper(),
                            checkpoint_seconds=options.checkpoint_seconds, at_end=look)
    if not complete:
        print(f"openmmflow: interrupted; the same command goes on with the run in {options.output}", file=sys.stderr)
        return INTERRUPTED
    if options.steps >= options.report_interval:
        print(summary(options.output, molecule.system, settings))
    print(found["exits"])
    print(f"report: {found['report']}")
    return 0


def _check(options) -> int:
    from . import FlowModel, check_report
    from .check import check
    from .simulate import flow_molecule

    output = check_report.page_path(options.output)
    masses = None
    if "pdb" in options:
        system = flow_molecule(options.model, options.pdb).system
        masses = [system.getParticleMass(i)._value for i in range(system.getNumParticles())]
    certificate = check(FlowModel.load(options.model), masses=masses, step_size=options.step_size, starts=options.starts,
                        length=options.length, seed=options.seed, progress=not options.quiet)
    print(certificate.table())
    page, figures = check_report.write(certificate, output, options.model.name)
    print(f"report: {page}, {figures}")
    return 0 if certificate.passed else 1


def _sample(options) -> int:
    from . import FlowModel, reweighting, sample_report, sampling
    from .simulate import InterruptFlag, read_pdb
    from .system_file import read_system

    model = FlowModel.load(options.model)
    system = None if options.system is None else read_system(options.system)
    topology = None if options.pdb is None else read_pdb(options.pdb).topology
    with InterruptFlag() as stop:
        complete = sampling.sample(options.output, model, options.count, system=system, temperature=options.temperature, topology=topology,
                                   gradients=options.gradients, seed=options.seed, platform=options.platform,
                                   progress=not options.quiet, stop=stop)
    if not complete:
        print(f"openmmflow: interrupted; the same command goes on with {options.output}", file=sys.stderr)
        return INTERRUPTED
    samples = sampling.read(options.output)
    print(f"{len(samples.log_prob):,} samples, mean -ln p = {-samples.log_prob.mean():.3f} k_BT")
    if samples.log_weights is not None:
        print(f"reweighted to {samples.temperature:g} K: {reweighting.quality(samples.log_weights)}")
        mean, error = reweighting.expectation(samples.log_weights, samples.energies)
        print(f"mean potential energy {mean:.3f} ± {error:.3f} kJ/mol")
    print(f"report: {sample_report.write(options.output, model, topology)}")
    return 0


def _dataset(options) -> int:
    from . import FlowModel, data_quality, dataset
    from .simulate import read_pdb
    from .system_file import read_system

    pdb = dataset.alanine_dipeptide() if options.topology is None else read_pdb(options.topology)
    paths = options.quality
    if paths is None:
        if options.output is None:
            raise ValueError("say where the data goes (-o DATA.h5), or what to judge (--quality DATA.h5 ...)")
        paths = [options.output]
        dataset.make_molecule_dataset(
            options.output, pdb, frames=options.frames, seed=options.seed, progress=not options.quiet,
            system=None if options.system is None else read_system(options.system), force_field=options.force_field,
            constraints=options.constraints, temperature=options.temperature, highest_temperature=options.highest_temperature,
            replicas=options.replicas, proposals=None if options.proposals is None else FlowModel.load(options.proposals),
            moves=options.moves, step_size=options.step_size / 1000, friction=options.friction, steps_per_frame=options.frame_steps)
        if options.frames < 10 * data_quality.BLOCKS:
            return 0
    print(data_quality.text(data_quality.read_runs(paths, pdb.topology)))
    return 0


def _benchmark(options) -> int:
    from .benchmark.command import run

    return run(options)


def _train(options) -> int:
    try:
        from openmmflow_training.__main__ import main as train
    except ModuleNotFoundError as error:
        if not error.name.startswith("openmmflow_training"):
            raise
        raise RuntimeError("training needs the package openmmflow_training, which is not installed; "
                           "in a checkout: pip install --no-build-isolation ./training") from None
    train(options.rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
