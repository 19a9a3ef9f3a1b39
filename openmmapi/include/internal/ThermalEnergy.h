// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_THERMALENERGY_H_
#define OPENMMFLOW_THERMALENERGY_H_

namespace OpenMMFlow {

/** k_B T in kJ/mol of a temperature in K. The constants are exact in the SI of 2019; OpenMM has the same ones. */
inline constexpr double thermalEnergy(double temperature) {
    constexpr double boltzmann = 1.380649e-23;     // J/K
    constexpr double avogadro = 6.02214076e23;     // 1/mol
    return boltzmann*avogadro/1000*temperature;
}

} // namespace OpenMMFlow

#endif // OPENMMFLOW_THERMALENERGY_H_
