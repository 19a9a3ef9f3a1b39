// SPDX-License-Identifier: MIT
#include "Models.h"
#include "model/Failure.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

namespace OpenMMFlow {

static std::vector<double> readPdb(const std::string& path) {
    std::ifstream file(path);
    if (!file)
        fail("cannot read ", path);
    std::vector<double> positions;
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("ATOM", 0) != 0 && line.rfind("HETATM", 0) != 0)
            continue;
        if (line.size() < 54)
            fail(path, ": a line ends before the coordinates in columns 31 to 54: ", line);
        for (int column : {30, 38, 46})
            positions.push_back(0.1*std::atof(line.substr(column, 8).c_str()));    // Angstrom to nm
    }
    return positions;
}

NamedModel loadNamedModel(const std::string& modelPath, const std::string& pdbPath) {
    NamedModel named = {std::filesystem::path(modelPath).stem().string(), FlowModel::load(modelPath), readPdb(pdbPath)};
    const std::size_t expected = 3*static_cast<std::size_t>(named.model.getNumParticles());
    if (named.conformation.size() != expected)
        fail(pdbPath, " has ", named.conformation.size()/3, " atoms, but the model ", modelPath, " has ", expected/3, " particles");
    return named;
}

std::vector<double> conformations(const NamedModel& model, int count) {
    std::mt19937 random(1);
    std::normal_distribution<double> shift(0, 0.0005);
    std::vector<double> positions;
    for (int i = 0; i < count; i++)
        for (double x : model.conformation)
            positions.push_back(x+shift(random));
    return positions;
}

} // namespace OpenMMFlow
