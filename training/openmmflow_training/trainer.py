# SPDX-License-Identifier: MIT
"""Training: maximum likelihood, then force matching with it, then smoothness over a time step as well."""
from __future__ import annotations

import copy
import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from openmmflow import builder, model_file
from openmmflow.hashes import sha256
from tqdm import tqdm

from .curves import plot_curves
from .data import cyclic_symmetries, read_datasets, split_by_time, turn_symmetric_groups
from .flow_module import FlowModule
from .losses import evaluate, likelihood_and_force_loss, step_loss


@dataclass
class TrainingConfig:
    """How a flow is trained.

    Attributes
    ----------
    steps : of the optimizer; None if the run is limited by time.
    minutes : of training, all resumed parts together; the schedule ends then. Either this or ``steps``.
    batch : frames a step.
    betas : decays of Adam's moments.
    learning_rate : at its highest; warm-up is linear, then it falls as a cosine to ``final_rate`` times that.
    warm_up : part of the run.
    force_start : part of the run after which force matching begins; the likelihood alone is several times faster a step.
    force_weight : of the mean squared force error in (k_BT/nm)^2, next to the negative log-likelihood in k_BT.
    roughness_start : part of the run after which the roughness of the force error over a time step is minimized, too; for data
        sets with displacements (openmmflow.dataset.add_displaced_forces). These steps take a third of the frames, at three places
        each.
    roughness_weight : of the mean squared roughness in (k_BT/nm)^2.
    clip : largest norm of the gradient, as a multiple of its running geometric mean.
    ema : decay a step of the average of the weights that is validated and saved.
    validation, test : parts of each data set, at its end, that are held out.
    symmetric : turn methyl groups at random.
    seed : of weights and batches; a run with ``steps`` is repeatable on one machine.
    validate_seconds : between validations (and checkpoints).
    threads : of PyTorch; 0 leaves its choice.
    start_from : a model file whose architecture and weights the run starts with, instead of a new flow; ``flow`` has no meaning then.
    flow : the shape of the flow.

    Raises ValueError for numbers that make no sense.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 256
    betas: tuple[float, float] = (0.9, 0.99)
    learning_rate: float = 3e-3
    final_rate: float = 0.005
    warm_up: float = 0.005
    force_start: float = 0.03
    force_weight: float = 3e-3
    roughness_start: float = 0.3
    roughness_weight: float = 0.0
    clip: float = 2.0
    ema: float = 0.999
    validation: float = 0.05
    test: float = 0.10
    symmetric: bool = True
    seed: int = 1
    validate_seconds: float = 60.0
    threads: int = 0
    start_from: str | None = None
    flow: builder.FlowOptions = field(default_factory=builder.FlowOptions)

    def __post_init__(self):
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give either `steps` or `minutes` of training")
        if min(self.force_weight, self.roughness_weight) < 0:
            raise ValueError(f"weights of losses must not be negative, got {self.force_weight} and {self.roughness_weight}")
        for name in ("steps", "minutes", "batch", "learning_rate", "clip", "validate_seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0 and not (name == "validate_seconds" and value == 0):
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 < self.validation + self.test < 1 or min(self.validation, self.test) < 0:
            raise ValueError(f"parts of {self.validation} for validation and {self.test} for the test leave nothing to train on; "
                             "give two parts >= 0 that add up to less than 1")


class Trainer:
    """State of a training run: module, average of its weights, optimizer, step and elapsed seconds."""

    def __init__(self, module: FlowModule, train, validation, config: TrainingConfig, symmetries=()):
        self.module = module
        self.average = copy.deepcopy(module).requires_grad_(False)
        self.frames, self.validation = train, validation
        self.config = config
        self.symmetries = list(symmetries) if config.symmetric else []
        self.parameters = list(module.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate, betas=config.betas)
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
        c, p = self.config, min(self.progress, 1.0)
        if p < c.warm_up:
            return c.learning_rate * max(p / c.warm_up, 0.01)
        cosine = 0.5 * (1 + math.cos(math.pi * (p - c.warm_up) / (1 - c.warm_up)))
        return c.learning_rate * (c.final_rate + (1 - c.final_rate) * cosine)

    def batch(self):
        """The frames of the present step; a function of seed and step alone."""
        per_epoch = max(len(self.frames) // self.config.batch, 1)
        epoch, position = divmod(self.step, per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.frames), generator=generator)
        index = self._order[position * self.config.batch:(position + 1) * self.config.batch]
        generator = torch.Generator().manual_seed(self.config.seed * 7_919 + self.step)
        return turn_symmetric_groups(self.frames[index], self.symmetries, generator)

    def train_step(self) -> dict[str, float]:
        """One step of the optimizer; returns losses for display."""
        start = time.perf_counter()
        frames = self.batch()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        result = {}
        if self.config.roughness_weight > 0 and self.progress >= self.config.roughness_start:
            nll, mse, roughness = step_loss(self.module, frames[:max(1, len(frames) // 3)], create_graph=True)
            loss = nll + self.config.force_weight * mse + self.config.roughness_weight * roughness
            result["force_rmse"], result["roughness"] = mse.item() ** 0.5, roughness.item() ** 0.5
        elif self.progress >= self.config.force_start:
            nll, mse = likelihood_and_force_loss(self.module, frames, create_graph=True)
            loss = nll + self.config.force_weight * mse
            result["force_rmse"] = mse.item() ** 0.5
        else:
            loss = nll = -self.module.log_prob(frames.positions).mean()
        gradients = torch.autograd.grad(loss, self.parameters)
        result |= {"loss": loss.item(), "nll": nll.item()}
        norm = torch.sqrt(sum(g.square().sum() for g in gradients)).item()
        result["gradient_norm"] = norm
        if math.isfinite(norm) and norm > 0:
            scale = self._clip_factor(norm)
            for parameter, gradient in zip(self.parameters, gradients):
                parameter.grad = gradient * scale
            self.optimizer.step()
            self._update_average()
        self.step += 1
        self.elapsed += time.perf_counter() - start
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
                "optimizer": self.optimizer.state_dict(), "step": self.step, "elapsed": self.elapsed, "log_norm": self.log_norm}

    def load_state(self, state: dict):
        """Go on where :meth:`state` was taken."""
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed, self.log_norm = state["step"], state["elapsed"], state["log_norm"]


def train(topology, datasets, output, config: TrainingConfig, *, progress: bool = True, command: str | None = None) -> Path:
    """Train a flow on data sets of :mod:`openmmflow.dataset` and write it as a model file.

    A run that was interrupted goes on when it is called again with the same output: next to the model file are
    ``<name>.checkpoint``, the log ``<name>.jsonl`` (one JSON document a line) and, at the end, the curves ``<name>.png``.

    Parameters
    ----------
    topology : an openmm.app.Topology.
    datasets : paths of data sets.
    output : path of the model file.
    config : how to train.
    progress : show a progress bar.
    command : what was run, for the record in the model file.

    Raises
    ------
    ValueError : data that is no data set, or not of this molecule.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    sets, description = read_datasets(datasets)
    training, validation, test = split_by_time(sets, config.validation, config.test)
    if min(len(training), len(validation)) < 1 or len(training) < config.batch:
        raise ValueError(f"{len(training)} training and {len(validation)} validation frames do not suffice for batches of "
                         f"{config.batch}")
    if config.roughness_weight > 0 and training.displacements is None:
        raise ValueError("roughness can only be minimized with data sets that all have forces a time step ahead and behind; "
                         "openmmflow.dataset.add_displaced_forces adds them")
    provenance = {**description, "frames": len(training), "training": _provenance(config)}
    if command:
        provenance["command"] = command
    if config.start_from is not None:
        architecture, tensors = _start(config.start_from, topology, description["temperature"], provenance)
    else:
        architecture, tensors = builder.build(
            topology, training.positions[::max(1, len(training) // 20_000)].numpy(), temperature=description["temperature"],
            data=provenance, options=config.flow, seed=config.seed)
    elements = [atom.element.symbol if atom.element else atom.name for atom in topology.atoms()]
    trainer = Trainer(FlowModule((architecture, tensors)), training, validation, config,
                      cyclic_symmetries(architecture["bonds"], elements))
    checkpoint, log = output.with_suffix(".checkpoint"), output.with_suffix(".jsonl")
    if checkpoint.exists():
        # Marginals too are those of the first start, should the data sets have grown since.
        state = torch.load(checkpoint, weights_only=True)
        trainer.load_state(state)
    _run(trainer, checkpoint, log, output, progress)
    trainer.average.architecture["data"]["validation"] = evaluate(trainer.average, validation)
    if len(test):
        trainer.average.architecture["data"]["test"] = evaluate(trainer.average, test)
    trainer.average.save(output)
    _append(log, {"step": trainer.step, "test": trainer.average.architecture["data"].get("test")})
    plot_curves(log, output.with_suffix(".png"))
    return output


def _start(path, topology, temperature, provenance) -> tuple[dict, dict]:
    """Architecture and weights of a model file for more training; its own provenance becomes part of the new one."""
    architecture, tensors = model_file.read(path)
    bonds = {frozenset(bond) for bond in architecture["bonds"]}
    if bonds != {frozenset((a.index, b.index)) for a, b in topology.bonds()} or architecture["numParticles"] != topology.getNumAtoms():
        raise ValueError(f"{path} is a model of another molecule: its bonds are not those of the topology")
    if architecture["temperature"] != temperature:
        raise ValueError(f"{path} is a model at {architecture['temperature']} K, the data is of {temperature} K")
    return {**architecture, "data": {**provenance, "startedFrom": {"sha256": sha256(path), "data": architecture["data"]}}}, tensors


def _run(trainer: Trainer, checkpoint: Path, log: Path, output: Path, progress: bool):
    last_validation = time.perf_counter()
    recent = {}
    with tqdm(total=1.0, initial=min(trainer.progress, 1.0), disable=not progress, mininterval=1.0,
              bar_format="{percentage:5.1f} % |{bar}| {elapsed} < {remaining} {postfix}") as bar:
        while trainer.progress < 1:
            result = trainer.train_step()
            for key, value in result.items():
                recent[key] = value if key not in recent else 0.98 * recent[key] + 0.02 * value
            bar.set_postfix(step=trainer.step, **{key: f"{value:.2f}" for key, value in recent.items()}, refresh=False)
            bar.update(min(trainer.progress, 1.0) - bar.n)
            if time.perf_counter() - last_validation > trainer.config.validate_seconds or trainer.progress >= 1:
                _append(log, {"step": trainer.step, "elapsed": round(trainer.elapsed, 1), "rate": trainer.learning_rate(),
                              "training": recent, "validation": evaluate(trainer.average, trainer.validation[::4])})
                _save_checkpoint(checkpoint, trainer)
                trainer.average.save(output)
                last_validation = time.perf_counter()


def _save_checkpoint(path: Path, trainer: Trainer):
    temporary = path.with_name(path.name + ".part")
    torch.save(trainer.state(), temporary)
    os.replace(temporary, path)


def _append(path: Path, record: dict):
    with open(path, "a") as file:
        file.write(json.dumps(record) + "\n")


def _provenance(config: TrainingConfig) -> dict:
    values = asdict(config)
    values.pop("threads")
    if config.start_from is not None:
        values["start_from"] = Path(config.start_from).name
        values.pop("flow")
    return values
