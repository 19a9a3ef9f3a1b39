# SPDX-License-Identifier: MIT
"""Models of random architecture, with conformations in their support: inputs of tests."""
import numpy as np
import torch
from reference_flow import ReferenceFlow

HEADS, CLOSED_FORMS, EXPONENTS = ("free", "published"), ("density", "sampling"), (1, 2)
ACTIVATIONS = ("silu", "tanh", "sin", "gelu", "softplus")
DISTRIBUTIONS = ("uniform", "normal", "truncatedNormal")
# Layers of version 1.
VERSION_1 = {"internalCoordinates", "marginal", "coupling"}
# Of each transformer: domains, key of its size, blocks (rows of the size, more rows, only of intervals), and settings, which are ranges or,
# for minima of shares, None.
TRANSFORMERS = {
    "rationalQuadraticSpline": (("interval", "circle"), "bins", [(1, 0, False)] * 3 + [(0, 1, True)],
                                {"minimumWidth": None, "minimumHeight": None, "minimumSlope": (0.05, 0.5), "slopeSharpness": (0.3, 2)}),
    "cubicBSpline": (("interval", "circle"), "bins", ([(1, 0, False)] + [(0, 1, True)] * 2 + [(1, 0, False)] + [(0, 1, True)] * 4),
                     {"minimumWidth": None, "minimumIncrement": None}),
    "affine": (("real",), None, [(0, 1, False)] * 2, {"logScaleBound": (0.1, 3)}),
    "moebius": (("circle",), "components", [(1, 0, False)] * 3, {"radiusBound": (0.1, 0.8)}),
    "analytic": (("interval", "circle"), "steps", [(1, 0, False)] * 2 + [(0, 1, False), (1, -1, True)],
                 {"logScaleBound": (0.3, 2), "radiusBound": (0.1, 0.6)}),
}
SMALLEST_ALPHA = {1: 0.8656721, 2: 0.3052033}


class RandomArchitecture:
    """Draws the parts of one model of `particles` particles; :meth:`model` has architecture and tensors.

    ``positions`` (count, particles, 3), nm, lie inside the support, which is chosen around them. With `block` particles these stay
    in Cartesians.
    """

    def __init__(self, seed, particles=None, *, measure=None, count=6, block=None):
        self.random = np.random.default_rng(seed)
        self.particles = particles or int(self.random.integers(4, 11))
        self.measure = measure or self.choose(("cartesian", "frame"))
        self.z_matrix = self._draw_z_matrix()
        self.positions = self._draw_positions(count)
        self.tensors = {}
        self.bonds = [row[:2] for row in self.z_matrix if row[1] >= 0]
        rows = self.particles
        if block:
            # The first that were placed.
            atoms = [int(i) for i in self.random.permutation([row[0] for row in self.placed_in_order[:block]])]
            self.layers = [self._mixed_coordinates(atoms, [row for row in self.z_matrix if row[0] not in atoms])]
            rows = self.particles - block
            self.bond_count, angles, torsions = rows, rows, rows
        else:
            self.layers = [{"type": "internalCoordinates", "zMatrix": self.z_matrix}]
            self.bond_count, angles, torsions = rows - 1, rows - 2, rows - 3
        self.coordinates = self._internal_coordinates(self.positions)
        self.domains = np.array(["real"] * self.coordinates.shape[1], dtype=object)
        self.domains[self.bond_count + angles:self.bond_count + angles + torsions] = "circle"
        # Of coordinates that only normalizations and permutations have changed.
        self.kinds = np.array(["bond"] * self.bond_count + ["angle"] * angles + ["other"] * (self.coordinates.shape[1] - self.bond_count
                                                                                             - angles), dtype=object)

    def choose(self, choices):
        return choices[self.random.integers(len(choices))]

    def add_marginals(self, distribution=None, *, all_coordinates=True):
        """Map real coordinates to intervals in groups, all of them or some."""
        real = self.random.permutation(np.flatnonzero(self.domains == "real"))
        if not all_coordinates:
            real = real[:self.random.integers(1, len(real) + 1)]
        for group in np.split(real, np.sort(self.random.integers(0, len(real) + 1, 2))):
            if len(group):
                kind = distribution or self.choose(DISTRIBUTIONS)
                entry = self._distributions(f"layers.{len(self.layers)}", kind, group, self.coordinates[:, group])
                self.layers.append({"type": "marginal"} | entry)
                self.domains[group] = "interval"
                self.kinds[group] = "other"

    def add_elementwise(self, kind):
        """Add a layer of the type `kind` to some coordinates that it is for, if there are any."""
        name = f"layers.{len(self.layers)}"
        if kind == "permutation":
            order = self.random.permutation(len(self.domains))
            self.domains, self.kinds, self.coordinates = self.domains[order], self.kinds[order], self.coordinates[:, order]
            self.layers.append({"type": kind, "order": order.tolist()})
            return
        domain = {"affineNormalization": "real", "logistic": "real", "logit": "interval", "circularShift": "circle"}[kind]
        group = self.random.permutation(np.flatnonzero(self.domains == domain))
        group = group[:self.random.integers(1, len(group) + 1)] if len(group) else group
        if not len(group):
            return
        x = self.coordinates[:, group]
        if kind == "affineNormalization":
            shift, scale = self.random.normal(size=len(group)), np.exp(self.random.normal(size=len(group)))
            self._add(f"{name}.shift", shift)
            self._add(f"{name}.scale", scale)
            self.coordinates[:, group] = (x - shift) / scale
        elif kind == "circularShift":
            self._add(f"{name}.shift", self.random.uniform(-1, 1, len(group)))
        elif kind == "logit":
            # Couplings before it would make others of these; the base density only has to have a width.
            self.coordinates[:, group] = self.random.normal(size=x.shape)
        self.domains[group] = {"logit": "real", "logistic": "interval"}.get(kind, domain)
        self.kinds[group] = "other"
        self.layers.append({"type": kind, "coordinates": group.tolist()})

    def add_coupling(self, transformer=None, **options):
        """Transform some coordinates, conditioned on some of the others.

        `transformer` is the name of one, "smoothMixture" or one of those that work on any coordinates there are, which is drawn
        unless given, or unless options of smooth mixtures are. Where the model has no coordinate for it, a smooth mixture it is.
        """
        fitting = [name for name, (domains, *_) in TRANSFORMERS.items() if np.isin(self.domains, domains).any()]
        if transformer is None and not {"head", "exponent"} & options.keys():
            transformer = self.choose(["smoothMixture", *fitting])
        if transformer in fitting:
            self._add_formula_transformer(transformer, **options)
        else:
            self._add_smooth_mixture(**options)

    def _add_formula_transformer(self, name, *, closed_form=None, activation=None, hidden_layers=None, networks=None):
        domains, size_name, blocks, settings = TRANSFORMERS[name]
        possible = self.random.permutation(np.flatnonzero(np.isin(self.domains, domains)))
        transformed = possible[:self.random.integers(1, len(possible) + 1)]
        size = int(self.random.integers(2, 7))
        entry = {"type": name, "closedForm": closed_form or self.choose(CLOSED_FORMS)} | ({size_name: size} if size_name else {})
        for setting, limits in settings.items():
            entry[setting] = self.random.uniform(0.1, 0.5) / (size + 4) if limits is None else self.random.uniform(*limits)
        intervals = np.count_nonzero(self.domains[transformed] == "interval")
        lengths = [(rows * size + more) * (intervals if of_intervals else len(transformed)) for rows, more, of_intervals in blocks]
        # Real coordinates are bonds in nm and angles over pi.
        scale = 0.01 if self.domains[transformed[0]] == "real" else 1.0
        self._add_coupling_layer(transformed, entry, lengths, networks, hidden_layers, activation, scale)

    def _add_smooth_mixture(self, *, head=None, closed_form=None, exponent=None, activation=None, hidden_layers=None, networks=None):
        possible = self.random.permutation(np.flatnonzero(self.domains != "real"))
        transformed = possible[:self.random.integers(1, len(possible) + 1)]
        components, exponent = int(self.random.integers(1, 7)), exponent or self.choose(EXPONENTS)
        transformer = {
            "type": "smoothMixture", "head": head or self.choose(HEADS),
            "closedForm": closed_form or self.choose(CLOSED_FORMS), "components": components, "exponent": exponent,
            "alphaOffset": SMALLEST_ALPHA[exponent] + self.random.uniform(0, 0.2),
            "alphaRange": self.random.uniform(0, 10), "logSteepnessBound": self.random.uniform(0.5, 2),
            "minimumFloor": 10**self.random.uniform(-6, -1)}
        self._add_coupling_layer(transformed, transformer, [len(transformed) * components] * 5, networks, hidden_layers, activation, 1.0)

    def _add_coupling_layer(self, transformed, transformer, block_lengths, networks, hidden_layers, activation, output_scale):
        """The layer and its networks, each of which computes some blocks of raw parameters, at least one that is not empty."""
        rest = self.random.permutation(np.setdiff1d(np.arange(len(self.domains)), transformed))
        conditions = rest[:self.random.integers(1, len(rest) + 1)] if len(rest) else rest
        features = len(conditions) + np.count_nonzero(self.domains[conditions] == "circle")
        starts = np.flatnonzero(block_lengths)[1:]
        networks = min(networks or self.choose((1, 3)), len(starts) + 1)
        cuts = [0, *sorted(self.random.choice(starts, networks - 1, replace=False)), len(block_lengths)]
        widths = []
        for network, (first, last) in enumerate(zip(cuts, cuts[1:])):
            depth = 0 if not len(conditions) else self.random.integers(0, 4) if hidden_layers is None else hidden_layers
            hidden = self.random.integers(2, 12, depth).tolist()
            widths.append(hidden)
            sizes = [features, *hidden, sum(block_lengths[first:last])]
            for m, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
                name = f"layers.{len(self.layers)}.networks.{network}.{m}"
                scale = output_scale if m == len(hidden) else 1.0
                self._add(f"{name}.weight", scale * self.random.normal(size=(outputs, inputs)) * 1.2 / np.sqrt(max(inputs, 1)))
                self._add(f"{name}.bias", scale * self.random.normal(size=outputs) * 0.5)
        self.layers.append({
            "type": "coupling", "transformed": transformed.tolist(), "conditionedOn": conditions.tolist(), "transformer": transformer,
            "conditioner": {"activation": activation or self.choose(ACTIVATIONS), "networks": widths},
        })

    def model(self):
        """Architecture and tensors, with a base density that fits the domains."""
        base = []
        intervals = self.random.permutation(np.flatnonzero(self.domains == "interval"))
        truncated, uniform = np.split(intervals, [self.random.integers(len(intervals) + 1)])
        uniform = np.concatenate([uniform, np.flatnonzero(self.domains == "circle")]).astype(int)
        real = np.flatnonzero(self.domains == "real")
        for kind, group in (("truncatedNormal", truncated), ("uniform", uniform), ("normal", real)):
            if len(group):
                samples = self.coordinates[:, group] if kind == "normal" else self.random.uniform(size=(8, len(group)))
                base.append(self._distributions(f"base.{len(base)}", kind, group, samples, is_base=True))
        architecture = {
            "format": "openmm-flow", "version": self._version(), "numParticles": self.particles, "temperature": 300.0,
            "measure": self.measure, "bonds": self.bonds, "constraints": [], "layers": self.layers, "base": base}
        return architecture, self.tensors

    def _version(self):
        """The lowest that can hold the layers."""
        return 1 + any(layer["type"] not in VERSION_1 or layer.get("transformer", {"type": "smoothMixture"})["type"] != "smoothMixture"
                       for layer in self.layers)

    def _add(self, name, values):
        self.tensors[name] = np.asarray(values, dtype=np.float64)

    def _distributions(self, prefix, kind, group, samples, *, is_base=False):
        """An entry whose distributions hold the samples (samples, group) well inside."""
        low, high = samples.min(0), samples.max(0)
        width = high - low + 0.02
        if kind != "uniform":
            self._add(f"{prefix}.mean", (low + high) / 2 + 0.2 * width * self.random.uniform(-1, 1, len(group)))
            self._add(f"{prefix}.std", width * self.random.uniform(0.5, 1.5, len(group)))
        if kind != "normal" and not is_base:
            kinds = self.kinds[group]
            self._add(f"{prefix}.lower", np.where(kinds == "other", low - width, np.maximum(low - width, 0)))
            self._add(f"{prefix}.upper", np.where(kinds == "angle", np.minimum(high + width, 1), high + width))
        return {"distribution": kind, "coordinates": group.tolist()}

    def _draw_z_matrix(self):
        """Every particle from any three that were placed before it, in any order."""
        order = self.random.permutation(self.particles)
        rows = []
        for n, particle in enumerate(order):
            placed_from = self.random.permutation(order[:n])[:3]
            rows.append([int(i) for i in (particle, *placed_from)] + [-1] * (3 - len(placed_from)))
        self.placed_in_order = list(rows)
        self.random.shuffle(rows)
        return rows

    def _mixed_coordinates(self, block, rows):
        """The layer; the reference is the first conformation, with fluctuations of some 0.01 nm."""
        size = 3 * len(block)
        dimensions = size - 6 if self.measure == "cartesian" else int(self.random.integers(size - 6, size + 1))
        self._add("layers.0.reference", self.positions[0, block])
        self._add("layers.0.whitening", np.linalg.qr(self.random.normal(size=(size, size)))[0][:dimensions] / 0.01)
        return {"type": "mixedCoordinates", "block": block, "blockDimensions": dimensions, "zMatrix": rows}

    def _draw_positions(self, count):
        """Conformations near one in which no particles of a row are close to each other or to a line."""
        rows = [[i for i in row if i >= 0] for row in self.z_matrix]
        while True:
            x = self.random.normal(size=(self.particles, 3)) * 0.15
            if all(self._is_well_placed(x[row]) for row in rows):
                return x + 0.003 * self.random.normal(size=(count, self.particles, 3))

    @staticmethod
    def _is_well_placed(points):
        steps = np.diff(points, axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        if np.any(lengths < 0.08):
            return False
        directions = steps / lengths[:, None]
        return all(np.linalg.norm(np.cross(a, b)) > 0.3 for a, b in zip(directions, directions[1:]))

    def _internal_coordinates(self, positions):
        flow = ReferenceFlow({"numParticles": self.particles, "measure": self.measure}, self.tensors)
        make = flow._mixed_coordinates if self.layers[0]["type"] == "mixedCoordinates" else flow._internal_coordinates
        return make(self.layers[0], torch.from_numpy(positions))[0].numpy()
