# SPDX-License-Identifier: MIT
"""Training: maximum likelihood, then force matching with it, then smoothness over a time step, and reverse KL if wanted."""
from __future__ import annotations

import copy
import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from openmmflow import builder, model_file, molecules
from openmmflow.hashes import sha256
from tqdm import tqdm

from . import parallel
from .data import Frames, cyclic_symmetries, read_data, split_by_time, turn_symmetric_groups
from .flow_module import FlowModule
from .losses import evaluate, evaluate_samples, likelihood_and_force_loss, reverse_kl_loss, step_loss
from .openmm_potential import OpenMMPotential
from .report import write_report
from .schedules import DECAYS, Schedule, learning_rate

Weight = float | str | list
"""What :class:`Schedule` takes."""

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
RESUMABLE = ("steps", "minutes", "threads", "validate_seconds", "validate_steps", "report")
"""Settings that a run may go on with others of."""


@dataclass
class TrainingConfig:
    """How a flow is trained.

    Attributes
    ----------
    steps : of the optimizer; None if the run is limited by time.
    minutes : of training, all resumed parts together; the schedule ends then. Either this or ``steps``.
    batch : frames a step.
    optimizer : "adam" or "adamw".
    weight_decay : of the optimizer.
    betas : decays of Adam's moments.
    learning_rate : at its highest, after a linear warm-up; then it falls to ``final_rate`` times that.
    warm_up : part of the run.
    decay : how it falls: "cosine", "step" or "constant", see openmmflow_training.schedules.
    likelihood_weight : of the negative log-likelihood in k_BT. This and the other weights may be schedules over the run: points
        (part of the run, weight), "0:1, 0.5:1, 0.6:0.1" for one; the parts named *_start are a shorthand for 0 before them.
    force_start : part of the run after which force matching begins; the likelihood alone is several times faster a step.
    force_weight : of the mean squared force error in (k_BT/nm)^2.
    roughness_start : part of the run after which the roughness of the force error over a time step is minimized, too; for data
        sets with displacements (openmmflow.dataset.add_displaced_forces). These steps take a third of the frames, at three places
        each.
    roughness_weight : of the mean squared roughness in (k_BT/nm)^2.
    reverse_start : part of the run after which the reverse KL is minimized, too. Samples of an untrained flow have overlapping atoms.
    reverse_weight : of the reverse KL, the mean of ln p + u over samples of the flow, k_BT; needs a System.
    reverse_batch : samples a step.
    reverse_energy_margin : k_BT above the highest energy of (256) training frames from where energies are regularized, see OpenMMPotential.
    reverse_workers : Contexts that evaluate samples in parallel; 0: as many as there are processors.
    clip : largest norm of the gradient, as a multiple of its running geometric mean.
    ema : decay a step of the average of the weights that is validated and saved.
    validation, test : parts of each data set, at its end, that are held out.
    symmetric : turn methyl groups at random.
    precision : "float32" or "float64", of weights and couplings. Geometry and sums of logarithms are always float64.
    seed : of weights and batches; a run with ``steps`` is repeatable on one machine.
    molecule_atom : an atom of the molecule, if the topology has molecules of different kinds.
    validate_seconds : between validations (and checkpoints).
    validate_steps : validate after so many steps instead.
    report : write the report at the end.
    threads : of PyTorch; 0 leaves its choice.
    start_from : a model file whose architecture and weights the run starts with, instead of a new flow; ``flow`` has no meaning then.
    flow : the shape of the flow.

    Raises ValueError for numbers that make no sense.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 256
    optimizer: str = "adam"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    learning_rate: float = 3e-3
    final_rate: float = 0.005
    warm_up: float = 0.005
    decay: str = "cosine"
    likelihood_weight: Weight = 1.0
    force_start: float = 0.03
    force_weight: Weight = 3e-3
    roughness_start: float = 0.3
    roughness_weight: Weight = 0.0
    reverse_start: float = 0.3
    reverse_weight: Weight = 0.0
    reverse_batch: int = 64
    reverse_energy_margin: float = 20.0
    reverse_workers: int = 0
    clip: float = 2.0
    ema: float = 0.999
    validation: float = 0.05
    test: float = 0.10
    symmetric: bool = True
    precision: str = "float32"
    seed: int = 1
    molecule_atom: int | None = None
    validate_seconds: float = 60.0
    validate_steps: int | None = None
    report: bool = True
    threads: int = 0
    start_from: str | None = None
    flow: builder.FlowOptions = field(default_factory=builder.FlowOptions)

    def __post_init__(self):
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give either `steps` or `minutes` of training")
        for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS), ("decay", DECAYS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for progress in np.linspace(0, 1, 1001):
            if not any(self.weights(progress).values()):
                raise ValueError(f"all weights of losses are 0 when {progress:.1%} of the run have passed: there is nothing to minimize")
        for name in ("steps", "minutes", "batch", "learning_rate", "clip", "validate_seconds", "validate_steps", "reverse_batch"):
            value = getattr(self, name)
            if value is not None and not value > 0 and not (name == "validate_seconds" and value == 0):
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 < self.validation + self.test < 1 or min(self.validation, self.test) < 0:
            raise ValueError(f"parts of {self.validation} for validation and {self.test} for the test leave nothing to train on; "
                             "give two parts >= 0 that add up to less than 1")


    def weights(self, progress: float) -> dict[str, float]:
        """The weight of each loss at a progress from 0 to 1: likelihood, force, roughness and reverse."""
        starts = {"likelihood": 0.0, "force": self.force_start, "roughness": self.roughness_start, "reverse": self.reverse_start}
        return {name: Schedule(getattr(self, f"{name}_weight"))(progress) if progress >= start else 0.0 for name, start in starts.items()}


class Trainer:
    """State of a training run: module, average of its weights, optimizer, step and elapsed seconds.

    Parameters
    ----------
    module : the flow.
    train, validation : Frames.
    config : how to train.
    symmetries : particle permutations, openmmflow_training.data.cyclic_symmetries.
    potential : reduced energies of positions, for the reverse KL.

    Under ``torchrun`` every process takes its share of each batch, and gradients are averaged: the steps are those of one process, up to
    rounding.
    """

    def __init__(self, module: FlowModule, train, validation, config: TrainingConfig, symmetries=(), potential=None):
        module = module.to(PRECISIONS[config.precision])
        self.potential = potential
        self.module = module
        self.average = copy.deepcopy(module).requires_grad_(False)
        self.frames, self.validation = train, validation
        self.config = config
        self.symmetries = list(symmetries) if config.symmetric else []
        self.parameters = list(module.parameters())
        self.optimizer = OPTIMIZERS[config.optimizer](self.parameters, lr=config.learning_rate, betas=config.betas,
                                                      weight_decay=config.weight_decay, fused=True)
        self.step = 0
        self.elapsed = 0.0
        self.log_norm = None    # running mean of ln(norm of the gradient)
        self._epoch, self._order = None, None

    @property
    def progress(self) -> float:
        """From 0 to 1 over the run."""
        if self.config.steps is not None:
            return self.step / self.config.steps
        return self.elapsed / (60 * self.config.minutes)

    def learning_rate(self) -> float:
        """At this point of the run."""
        c = self.config
        return learning_rate(self.progress, highest=c.learning_rate, final=c.final_rate, warm_up=c.warm_up, decay=c.decay)

    def batch(self):
        """The frames of the present step, this process's share of them; a function of seed and step alone."""
        per_epoch = max(len(self.frames) // self.config.batch, 1)
        epoch, position = divmod(self.step, per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.frames), generator=generator)
        index = self._order[position * self.config.batch:(position + 1) * self.config.batch]
        generator = torch.Generator().manual_seed(self.config.seed * 7_919 + self.step)
        return turn_symmetric_groups(self.frames[index], self.symmetries, generator)[parallel.rank()::parallel.size()]

    def latents(self) -> torch.Tensor:
        """The latents of the present step's samples, this process's share of them."""
        generator = torch.Generator().manual_seed(self.config.seed * 104_729 + self.step)
        return self.module.sample_latents(self.config.reverse_batch, generator)[parallel.rank()::parallel.size()]

    def losses(self, weights: dict[str, float]) -> dict[str, torch.Tensor]:
        """The losses of the present step whose weights are not 0, and those that are computed with them."""
        losses = {}
        if weights["roughness"]:
            frames = self.batch()
            losses["likelihood"], losses["force"], losses["roughness"] = step_loss(
                self.module, frames[:max(1, len(frames) // 3)], create_graph=True)
        elif weights["force"]:
            losses["likelihood"], losses["force"] = likelihood_and_force_loss(self.module, self.batch(), create_graph=True)
        elif weights["likelihood"]:
            losses["likelihood"] = -self.module.log_prob(self.batch().positions).mean()
        if weights["reverse"]:
            losses["reverse"] = reverse_kl_loss(self.module, self.latents(), self.potential)
        return losses

    def train_step(self) -> dict[str, float]:
        """One step of the optimizer; returns losses for display."""
        start = time.perf_counter()
        weights = self.config.weights(min(self.progress, 1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        losses = self.losses(weights)
        loss = sum(weights[name] * value for name, value in losses.items() if weights[name])
        gradients, values = parallel.average(torch.autograd.grad(loss, self.parameters, materialize_grads=True),
                                             [loss.item(), *(value.item() for value in losses.values())])
        values = dict(zip(("loss", *losses), values))
        result = {"loss": values["loss"]}
        if "likelihood" in values:
            result["nll"] = values["likelihood"]
        result |= {name: values[key] ** 0.5 for name, key in (("force_rmse", "force"), ("roughness", "roughness")) if key in values}
        if "reverse" in values:
            result["reverse_kl"] = values["reverse"]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        result["gradient_norm"] = norm
        if math.isfinite(norm) and norm > 0:
            scale = self._clip_factor(norm)
            for parameter, gradient in zip(self.parameters, torch._foreach_mul(gradients, scale)):
                parameter.grad = gradient
            self.optimizer.step()
            self._update_average()
        self.step += 1
        _, (seconds,) = parallel.average([], [time.perf_counter() - start])
        self.elapsed += seconds
        return result

    def _clip_factor(self, norm: float) -> float:
        log_norm = math.log(norm)
        if self.log_norm is None:
            self.log_norm = log_norm
        factor = min(1.0, self.config.clip * math.exp(self.log_norm - log_norm))
        # An outlier moves the mean no further than the clip allows.
        self.log_norm += 0.02 * (log_norm + math.log(factor) - self.log_norm)
        return factor

    @torch.no_grad()
    def _update_average(self):
        # Young averages follow the weights faster.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), self.parameters, 1 - decay)

    def state(self) -> dict:
        """All that the rest of the run depends on."""
        return {"module": self.module.state_dict(), "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(), "step": self.step, "elapsed": self.elapsed, "log_norm": self.log_norm,
                "settings": json.dumps(_fixed_settings(self.config))}

    def load_state(self, state: dict):
        """Go on where :meth:`state` was taken. Raises ValueError if that was a run with other settings."""
        if "settings" in state:
            _compare_settings(json.loads(state["settings"]), json.loads(json.dumps(_fixed_settings(self.config))))
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed, self.log_norm = state["step"], state["elapsed"], state["log_norm"]


def train(topology, datasets, output, config: TrainingConfig, *, system=None, forces=(), temperature: float | None = None, z_matrix=None,
          data: dict | None = None, progress: bool = True, command: str | None = None) -> Path:
    """Train a flow on data sets of :mod:`openmmflow.dataset` or other trajectories and write it as a model file.

    A run that was interrupted goes on when it is called again with the same output: next to the model file are
    ``<name>.checkpoint``, the log ``<name>.jsonl`` (one JSON document a line) and, at the end, the report ``<name>.html``.

    Parameters
    ----------
    topology : an openmm.app.Topology of all atoms in the data. Of several copies of a molecule, all are trained on.
    datasets : paths of data sets, or of trajectories that MDTraj reads.
    output : path of the model file.
    config : how to train.
    system : an openmm.System of these atoms: for forces on trajectories without any, and for the reverse KL.
    forces : NPZ files of forces, one for each trajectory: :func:`openmmflow_training.data.read_data`.
    temperature : of trajectories, K.
    z_matrix : rows (i, j, k, l), docs/model_format.md, of the molecule; None: made from its bonds.
    data : what else is known of the data (``forceField``, ``environment``), for the record in the model file.
    progress : show a progress bar.
    command : what was run, for the record in the model file.

    Raises
    ------
    ValueError : data that is no data set, or not of this molecule; a checkpoint of another run.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    if config.batch % parallel.size() or config.reverse_batch % parallel.size():
        raise ValueError(f"batches of {config.batch} frames and {config.reverse_batch} samples cannot be shared evenly by {parallel.size()} "
                         "processes")
    if config.start_from is not None:
        z_matrix = _z_matrix_of(config.start_from, topology, config.molecule_atom)
    sets, description, molecule = read_data(datasets, topology, system=system, forces=forces, temperature=temperature,
                                            molecule_atom=config.molecule_atom, z_matrix=z_matrix)
    training, validation, test = split_by_time(sets, config.validation, config.test)
    if min(len(training), len(validation)) < 1 or len(training) < max(config.batch, builder.LEAST_FRAMES):
        raise ValueError(f"{len(training)} training and {len(validation)} validation frames do not suffice for batches of "
                         f"{config.batch} (and at least {builder.LEAST_FRAMES} are needed)")
    if Schedule(config.roughness_weight).largest > 0 and training.displacements is None:
        raise ValueError("roughness can only be minimized with data sets that all have forces a time step ahead and behind; "
                         "openmmflow.dataset.add_displaced_forces adds them")
    provenance = {**description, **(data or {}), "frames": len(training), "training": _provenance(config)}
    if command:
        provenance["command"] = command
    if config.start_from is not None:
        architecture, tensors = _start(config.start_from, description["temperature"], provenance)
    else:
        architecture, tensors = builder.build(
            molecule, training.positions[::max(1, len(training) // 20_000)].numpy(), temperature=description["temperature"],
            data=provenance, options=config.flow, seed=config.seed, z_matrix=z_matrix)
    potential = None
    if Schedule(config.reverse_weight).largest > 0:
        potential = _potential(system, molecule, architecture, training, config)
    elements = [atom.element.symbol if atom.element else atom.name for atom in molecule.atoms()]
    trainer = Trainer(FlowModule((architecture, tensors)), training, validation, config,
                      cyclic_symmetries(architecture["bonds"], elements), potential)
    checkpoint, log = output.with_suffix(".checkpoint"), output.with_suffix(".jsonl")
    if checkpoint.exists():
        # Marginals too are those of the first start, should the data sets have grown since.
        state = torch.load(checkpoint, weights_only=True)
        trainer.load_state(state)
        if parallel.rank() == 0 and log.exists():
            _truncate(log, trainer.step)
    parallel.wait()
    _run(trainer, checkpoint, log, output, progress and parallel.rank() == 0)
    if parallel.rank() == 0:
        _finish(trainer, test, log, output, molecule)
    parallel.wait()
    return output


def _z_matrix_of(path, topology, molecule_atom) -> list:
    """A Z-matrix that frames must have coordinates in for a model file, which must be of the molecule of the topology."""
    architecture, _ = model_file.read(path)
    molecule = molecules.subset(topology, molecules.copies(topology, molecule_atom)[0])
    bonds = {frozenset(bond) for bond in architecture["bonds"]}
    if bonds != {frozenset((a.index, b.index)) for a, b in molecule.bonds()} or architecture["numParticles"] != molecule.getNumAtoms():
        raise ValueError(f"{path} is a model of another molecule: its bonds are not those of the topology")
    return builder.covering_z_matrix(architecture)


def _start(path, temperature, provenance) -> tuple[dict, dict]:
    """Architecture and weights of a model file for more training; its own provenance becomes part of the new one."""
    architecture, tensors = model_file.read(path)
    if architecture["temperature"] != temperature:
        raise ValueError(f"{path} is a model at {architecture['temperature']} K, the data is of {temperature} K")
    return {**architecture, "data": {**provenance, "startedFrom": {"sha256": sha256(path), "data": architecture["data"]}}}, tensors


def _potential(system, molecule, architecture, training: Frames, config: TrainingConfig) -> OpenMMPotential:
    """The potential of the reverse KL, with its cut above the energies of training frames."""
    if system is None:
        raise ValueError("the reverse KL needs a System that gives the energies of samples")
    if system.getNumParticles() != molecule.getNumAtoms():
        raise ValueError(f"the reverse KL needs a System of the molecule alone, of {molecule.getNumAtoms()} particles; it has "
                         f"{system.getNumParticles()}")
    potential = OpenMMPotential(system, architecture["temperature"], workers=config.reverse_workers or None)
    energies, _ = potential.energies_and_forces(training.positions[::max(1, len(training) // 256)].numpy())
    potential.energy_cut = float(np.nanmax(energies)) + config.reverse_energy_margin
    return potential


def _run(trainer: Trainer, checkpoint: Path, log: Path, output: Path, progress: bool):
    last_validation = time.perf_counter()
    recent = {}
    c = trainer.config
    with tqdm(total=1.0, initial=min(trainer.progress, 1.0), disable=not progress, mininterval=1.0,
              bar_format="{percentage:5.1f} % |{bar}| {elapsed} < {remaining} {postfix}") as bar:
        while trainer.progress < 1:
            result = trainer.train_step()
            for key, value in result.items():
                recent[key] = value if key not in recent else 0.98 * recent[key] + 0.02 * value
            bar.set_postfix(step=trainer.step, **{key: f"{value:.2f}" for key, value in recent.items()}, refresh=False)
            bar.update(min(trainer.progress, 1.0) - bar.n)
            due = trainer.step % c.validate_steps == 0 if c.validate_steps else time.perf_counter() - last_validation > c.validate_seconds
            if (due or trainer.progress >= 1) and parallel.rank() == 0:
                record = {"step": trainer.step, "elapsed": round(trainer.elapsed, 1), "rate": trainer.learning_rate(),
                          "training": recent, "validation": evaluate(trainer.average, trainer.validation[::4])}
                if trainer.potential is not None:
                    record["samples"] = evaluate_samples(trainer.average, trainer.potential)
                _append(log, record)
                _save_checkpoint(checkpoint, trainer)
                trainer.average.save(output)
                last_validation = time.perf_counter()


def _finish(trainer: Trainer, test, log: Path, output: Path, molecule):
    """Validate and test the average of the weights, save it with the figures, and write the report."""
    average = trainer.average
    record = average.architecture["data"]
    record["validation"] = evaluate(average, trainer.validation)
    if len(test):
        record["test"] = evaluate(average, test)
    average.save(output)
    _append(log, {"step": trainer.step, "test": record.get("test")})
    if trainer.config.report:
        write_report(output.with_suffix(".html"), log, average, test if len(test) else trainer.validation, molecule, trainer.potential)


def _save_checkpoint(path: Path, trainer: Trainer):
    temporary = path.with_name(path.name + ".part")
    torch.save(trainer.state(), temporary)
    os.replace(temporary, path)


def _append(path: Path, record: dict):
    with open(path, "a") as file:
        file.write(json.dumps(record) + "\n")


def _truncate(log: Path, step: int):
    """Drop what a run wrote after its last checkpoint, and the test of a run that ended there."""
    lines = [line for line in log.read_text().splitlines() if (record := json.loads(line))["step"] <= step and "test" not in record]
    temporary = log.with_name(log.name + ".part")
    temporary.write_text("".join(line + "\n" for line in lines))
    os.replace(temporary, log)


def _provenance(config: TrainingConfig) -> dict:
    values = asdict(config)
    values.pop("threads")
    if config.start_from is not None:
        values["start_from"] = Path(config.start_from).name
        values.pop("flow")
    return values


def _fixed_settings(config: TrainingConfig) -> dict:
    return {name: value for name, value in asdict(config).items() if name not in RESUMABLE}


def _compare_settings(stored: dict, given: dict):
    flat = [{**settings, **{f"flow.{k}": v for k, v in settings["flow"].items()}} for settings in (stored, given)]
    differences = [f"{name} is {flat[0].get(name)!r} there and {flat[1].get(name)!r} now" for name in sorted(flat[0].keys() | flat[1].keys())
                   if name != "flow" and flat[0].get(name) != flat[1].get(name)]
    if differences:
        raise ValueError(f"the checkpoint beside the model file is of a run with other settings: {'; '.join(differences)}. Give the same "
                         "settings to go on with it, or another output")
