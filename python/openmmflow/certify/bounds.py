# SPDX-License-Identifier: MIT
"""What the figures of the shipped model must be."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Bound:
    """What a figure must be for the model to be certified."""

    part: str
    figure: str
    meaning: str
    unit: str
    at_least: Optional[float] = None
    at_most: Optional[float] = None

    def holds(self, value: Optional[float]) -> bool:
        """Whether it does; a figure that is not known (None: populations of a single run cannot disagree) does not."""
        return value is not None and (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self):
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


BOUNDS = (
    Bound("data", "frames", "frames of the force field", "", at_least=100_000),
    Bound("data", "inefficiency", "their statistical inefficiency, mean over bonds and angles, worst of the runs", "", at_most=1.2),
    Bound("data", "disagreement", "largest difference of the φ-basin's population between runs", "standard errors", at_most=2.0),
    Bound("data", "populationError", "relative standard error of that population, worst of the runs", "", at_most=0.1),
    Bound("accuracy", "forceRmse", "force RMSE on held-out frames", "k_BT/nm", at_most=45.0),
    Bound("published", "gain", "-ln p of the published checkpoint on the same frames, less that of the model", "k_BT", at_least=0.3),
    Bound("populations", "absoluteDifference", "φ-basin free energy, flow against the force field", "k_BT", at_most=1.0),
    Bound("ensemble", "samples", "samples of the flow reweighted to the force field, none clipped", "", at_least=100_000),
    Bound("ensemble", "effectiveFraction", "Kish effective sample size, of their number", "", at_least=0.1),
    Bound("ensemble", "basinDifference", "φ-basin free energy, reweighted against frames of the force field", "joint standard errors", at_most=1.96),
    Bound("nve", "starts", "NVE starts", "", at_least=10),
    Bound("nve", "length", "NVE length of each", "ps", at_least=100.0),
    Bound("nve", "fluctuationRatio", "NVE fluctuation at 1 fs, flow over Amber from the same starts", "", at_most=1.3),
    Bound("step_size", "exponent", "exponent of the step size in the fluctuation", "", at_least=1.85, at_most=2.15),
    Bound("nvt", "length", "NVT length from each basin", "ps", at_least=1000.0),
    Bound("nvt", "basins", "NVT basins to start from", "", at_least=3),
    Bound("nvt", "smallestFractionInSupport", "NVT frames inside the support, least of the basins", "", at_least=1.0),
    Bound("nvt", "smallestFractionInInnerSupport", "NVT frames where U is exactly -ln p, least of the basins", "", at_least=0.999),
    Bound("long_nve", "length", "NVE, long run", "ps", at_least=1000.0),
    Bound("long_nve", "drift", "its drift per degree of freedom", "kJ/mol/ps", at_most=1e-4),
    Bound("long_nvt", "length", "NVT, long run", "ps", at_least=10_000.0),
    Bound("long_nvt", "temperatureDeviation", "its mean temperature, from the thermostat's", "K", at_most=2.0),
    Bound("long_nvt", "allFinite", "1 if all of its energies are numbers", "", at_least=1.0),
)
