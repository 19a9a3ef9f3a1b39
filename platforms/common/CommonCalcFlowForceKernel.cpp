// SPDX-License-Identifier: MIT
#include "CommonCalcFlowForceKernel.h"
#include "FlowKernelSource.h"
#include "LocalMemory.h"

#include <openmm/OpenMMException.h>
#include <openmm/common/ComputeForceInfo.h>
#include <openmm/common/ContextSelector.h>
#include <openmm/internal/ContextImpl.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

using OpenMM::ComputeContext;
using OpenMM::ContextImpl;
using OpenMM::ContextSelector;

namespace OpenMMFlow {

namespace {

/** Places of the kernel's arguments that change. */
enum Argument {
    LambdaArgument = 17, IncludeForcesArgument, BoxArgument
};

/** An array with the given contents, of at least one element, which devices insist on. */
template <class T>
void create(OpenMM::ComputeArray& array, ComputeContext& cc, std::vector<T> contents, const char* name) {
    if (contents.empty())
        contents.resize(1);
    array.initialize<T>(cc, contents.size(), name);
    array.upload(contents);
}

/**
 * OPENMMFLOW_KERNEL_SHAPE=TILE,GROUP_SIZE[,LOCAL_BYTES[,CLUSTER]] takes the place of the choice between shapes, of what a group may use of local
 * memory, and of how many groups share a molecule: to measure other shapes, and to test on a processor what GPUs run.
 */
struct ShapeOverride {
    int tile = 0, groupSize = 0, cluster = 0;    // 0: none
    int localBytes = -1;                         // none

    ShapeOverride() {
        const char* text = std::getenv("OPENMMFLOW_KERNEL_SHAPE");
        if (text == nullptr)
            return;
        char comma = 0;
        bool commas = true;
        std::istringstream words(text);
        words >> tile;
        for (int* number : {&groupSize, &localBytes, &cluster})
            if (words && (number == &groupSize || !words.eof())) {
                words >> comma >> *number;
                commas = commas && comma == ',';
            }
        const bool isTile = (tile == 1 || (tile > 0 && tile%flowKernelLanes(tile) == 0));
        const bool isCluster = (cluster == 0 || cluster == 1 || (tile == 1 && (cluster == 2 || cluster == 4 || cluster == 8)));
        if (!words || !isTile || !isCluster || !commas || groupSize < 1)
            throw OpenMM::OpenMMException(std::string("FlowForce: OPENMMFLOW_KERNEL_SHAPE is '")+text+"'; expected TILE,GROUP_SIZE or "
                    "TILE,GROUP_SIZE,LOCAL_BYTES or TILE,GROUP_SIZE,LOCAL_BYTES,CLUSTER, with a tile of 1 or a multiple of 4 molecules, a positive "
                    "size of groups, and clusters of 1 or, for tiles of 1, of 2, 4 or 8 groups");
    }
};

} // namespace

/** For OpenMM's reordering of atoms: whole molecules may be swapped, as all of them are alike. */
class CommonCalcFlowForceKernel::ForceInfo : public OpenMM::ComputeForceInfo {
public:
    explicit ForceInfo(const std::vector<std::vector<int>>& molecules) : molecules(molecules) {
    }
    int getNumParticleGroups() override {
        return static_cast<int>(molecules.size());
    }
    void getParticlesInGroup(int index, std::vector<int>& particles) override {
        particles = molecules[index];
    }
    bool areGroupsIdentical(int, int) override {
        return true;
    }

private:
    const std::vector<std::vector<int>> molecules;
};

CommonCalcFlowForceKernel::CommonCalcFlowForceKernel(const std::string& name, const OpenMM::Platform& platform, ComputeContext& context,
        DeviceFeatures features) : CalcFlowForceKernel(name, platform), cc(context), features(features) {
}

void CommonCalcFlowForceKernel::initialize(const OpenMM::System&, const FlowForce& force,
        const std::vector<std::vector<int>>& molecules) {
    ContextSelector selector(cc);
    scaleParameterName = force.getScaleParameterName();
    scaleDerivative = force.getNumEnergyParameterDerivatives() > 0;
    if (scaleDerivative)
        cc.addEnergyParameterDerivative(scaleParameterName);
    // Derivatives with respect to parameters OpenMM reads from the first device alone.
    const int numMolecules = static_cast<int>(molecules.size()), device = cc.getContextIndex();
    const int numDevices = scaleDerivative ? 1 : static_cast<int>(cc.getAllContexts().size());
    firstMolecule = std::min(device, numDevices)*numMolecules/numDevices;
    endMolecule = std::min(device+1, numDevices)*numMolecules/numDevices;
    createArrays(compile(force));
    std::vector<int> particles;
    for (const std::vector<int>& molecule : molecules)
        particles.insert(particles.end(), molecule.begin(), molecule.end());
    create(atoms, cc, particles, "flowAtoms");
    create(counters, cc, std::vector<long long>(FLOW_NUM_COUNTERS), "flowCounters");
    info = new ForceInfo(molecules);
    cc.addForce(info);
}

/**
 * Choose the shape for the device, the model and the number of molecules, and make the kernel.
 *
 * A few molecules are bound by latency: one for each group of many work-items, or for a cluster of such groups as long as there are multiprocessors
 * to spare. Many are bound by arithmetic: a tile uses each weight that was read as often as it has molecules. In between, tiles just large enough
 * that every multiprocessor has one.
 */
DevicePlan CommonCalcFlowForceKernel::compile(const FlowForce& force) {
    const int numMolecules = endMolecule-firstMolecule;
    int mostGroups = cc.getNumThreadBlocks(), cluster = 1;
    if (cc.getIsCPU())
        shape = {numMolecules <= 4 ? 1 : 16, 16};
    else {
        // OpenMM starts six groups on each multiprocessor at most with CUDA, HIP and NVIDIA's OpenCL; with others it may be up to 24, for which
        // tiles are smaller than they could be. Of these groups one or two fit.
        const int numMultiprocessors = std::max(1, mostGroups/6);
        mostGroups = 2*numMultiprocessors;
        shape = {32, std::min(512, cc.getMaxThreadBlockSize())};
        for (int tile : {16, 8, 4, 1})
            if (numMolecules <= tile*numMultiprocessors)
                shape.tile = tile;
        // A cluster's groups lie in one part of the device, and what is left over in each part has none.
        while (2*cluster <= features.largestCluster && 4*numMolecules*2*cluster <= 3*numMultiprocessors)
            cluster *= 2;
    }
    const ShapeOverride chosen;
    if (chosen.tile > 0)
        shape = {chosen.tile, chosen.groupSize};
    if (chosen.cluster > 0)
        cluster = std::min(chosen.cluster, features.largestCluster);
    // The only way to ask for the size of local memory: in threads that need a byte each. OpenCL answers with half of it.
    // On a processor it is memory like any other (and PoCL 3.1 optimizes the kernel wrongly if it is used).
    int localBytes = (cc.getIsCPU() ? 0 : cc.computeThreadBlockSize(1.0));
    if (chosen.localBytes >= 0)
        localBytes = chosen.localBytes;
    // Work-items side by side share out the molecules of a tile.
    const int chunks = shape.tile/flowKernelLanes(shape.tile), unit = std::max(flowKernelWarp, chunks);
    shape.sumsInWarps = (features.warps && shape.groupSize%unit == 0 && (chunks&(chunks-1)) == 0 && chunks <= 4*flowKernelWarp);
    if (shape.sumsInWarps && shape.tile == 1)
        shape.cluster = cluster;
    LocalMemory local(force, shape, localBytes, realSize(), mixedSize());
    if (local.variant.numRealRows == 0 && shape.cluster > 1) {
        shape.cluster = 1;
        local = LocalMemory(force, shape, localBytes, realSize(), mixedSize());
    }
    if (chosen.cluster > shape.cluster)
        throw OpenMM::OpenMMException("FlowForce: OPENMMFLOW_KERNEL_SHAPE wants clusters of "+std::to_string(chosen.cluster)+" groups; that takes "
                "a CUDA device of compute capability 9.0 or newer, groups of whole warps, and a model that works in local memory");
    // Groups that do not fit would take memory for their arenas; those that do go on to other tiles.
    numTiles = std::min((numMolecules+shape.tile-1)/shape.tile, std::max(mostGroups/shape.cluster, 1));
    shape.keepsApart = local.variant.keptIsGlobal;
    shape.slices = local.variant.slices;
    arenasAreLocal = (local.variant.numRealRows > 0);
    kernel = cc.compileProgram(flowKernelSource, flowKernelDefinitions(local.variant))->createKernel("computeFlowForce");
    // Registers may allow for fewer.
    if (kernel->getMaxBlockSize() < chosen.groupSize)
        throw OpenMM::OpenMMException("FlowForce: OPENMMFLOW_KERNEL_SHAPE wants groups of "+std::to_string(chosen.groupSize)+
                " work-items, but registers and the device allow for "+std::to_string(kernel->getMaxBlockSize()));
    if (kernel->getMaxBlockSize() < shape.groupSize) {
        const int multiple = std::max(unit, shape.slices*chunks);
        shape.groupSize = std::max(kernel->getMaxBlockSize()/multiple*multiple, 1);
    }
    DevicePlan plan(force, shape);
    plan.table.resize(local.tableNumbers);
    plan.constants.resize(local.numConstants);
    return plan;
}

int CommonCalcFlowForceKernel::realSize() const {
    return cc.getUseDoublePrecision() ? sizeof(double) : sizeof(float);
}

int CommonCalcFlowForceKernel::mixedSize() const {
    return cc.getUseDoublePrecision() || cc.getUseMixedPrecision() ? sizeof(double) : sizeof(float);
}

void CommonCalcFlowForceKernel::createArrays(const DevicePlan& plan) {
    create(table, cc, plan.table, "flowTable");
    create(quads, cc, plan.quads, "flowQuads");
    findsRoots = plan.findsRoots;
    constants.initialize(cc, plan.constants.size(), mixedSize(), "flowConstants");
    constants.upload(plan.constants, true);
    weights.initialize(cc, std::max<std::size_t>(plan.weights.size(), 1), realSize(), "flowWeights");
    if (!plan.weights.empty())
        weights.upload(plan.weights, true);
    const std::size_t mixedRows = (arenasAreLocal ? 0 : plan.layout.numMixedRows);
    const std::size_t realRows = (arenasAreLocal ? plan.layout.numKeptRows : plan.layout.numRealRows);
    const std::size_t numArenas = static_cast<std::size_t>(numTiles)*shape.cluster;
    mixedArenas.initialize(cc, std::max<std::size_t>(mixedRows*numArenas*shape.tile, 1), mixedSize(), "flowMixedArenas");
    realArenas.initialize(cc, std::max<std::size_t>(realRows*numArenas*shape.tile, 1), realSize(), "flowRealArenas");
}

void CommonCalcFlowForceKernel::addArguments() {
    const std::vector<std::string>& names = cc.getEnergyParamDerivNames();
    const auto name = std::find(names.begin(), names.end(), scaleParameterName);
    kernel->addArg(table);
    kernel->addArg(constants);
    kernel->addArg(weights);
    kernel->addArg(quads);
    kernel->addArg(atoms);
    kernel->addArg(firstMolecule);
    kernel->addArg(endMolecule);
    kernel->addArg(mixedArenas);
    kernel->addArg(realArenas);
    kernel->addArg(counters);
    kernel->addArg(cc.getPosq());
    kernel->addArg(cc.getLongForceBuffer());
    kernel->addArg(cc.getEnergyBuffer());
    // Never touched if no derivative is wanted.
    kernel->addArg(scaleDerivative ? cc.getEnergyParamDerivBuffer() : cc.getEnergyBuffer());
    kernel->addArg(scaleDerivative ? static_cast<int>(name-names.begin()) : -1);
    kernel->addArg(static_cast<int>(names.size()));
    kernel->addArg(cc.getPaddedNumAtoms());
    for (int i = LambdaArgument; i < BoxArgument+3; i++)
        kernel->addArg();
    if (cc.getUseMixedPrecision() && cc.getContextIndex() == 0)
        kernel->addArg(cc.getPosqCorrection());
    else if (cc.getUseMixedPrecision()) {
        // Other devices are handed single precision positions.
        noCorrection.initialize<OpenMM::mm_float4>(cc, cc.getPaddedNumAtoms(), "flowNoCorrection");
        cc.clearBuffer(noCorrection);
        kernel->addArg(noCorrection);
    }
    hasArguments = true;
}

/** What may be another one at each step. */
void CommonCalcFlowForceKernel::setArguments(ContextImpl& context, bool includeForces) {
    const double lambda = context.getParameter(scaleParameterName);
    OpenMM::Vec3 box[3];
    cc.getPeriodicBoxVectors(box[0], box[1], box[2]);
    kernel->setArg(IncludeForcesArgument, static_cast<int>(includeForces));
    if (cc.getUseDoublePrecision() || cc.getUseMixedPrecision()) {
        kernel->setArg(LambdaArgument, lambda);
        for (int i = 0; i < 3; i++)
            kernel->setArg(BoxArgument+i, OpenMM::mm_double4(box[i][0], box[i][1], box[i][2], 0));
    }
    else {
        kernel->setArg(LambdaArgument, static_cast<float>(lambda));
        for (int i = 0; i < 3; i++)
            kernel->setArg(BoxArgument+i, OpenMM::mm_float4(static_cast<float>(box[i][0]), static_cast<float>(box[i][1]),
                    static_cast<float>(box[i][2]), 0));
    }
}

double CommonCalcFlowForceKernel::execute(ContextImpl& context, bool includeForces, bool includeEnergy) {
    if (numTiles == 0)
        return 0;
    ContextSelector selector(cc);
    if (!hasArguments)
        addArguments();
    setArguments(context, includeForces);
    try {
        kernel->execute(numTiles*shape.cluster*shape.groupSize, shape.groupSize);
    }
    catch (const OpenMM::OpenMMException& error) {
        if (shape.cluster == 1)
            throw;
        throw OpenMM::OpenMMException(std::string(error.what())+"; FlowForce had asked for a cluster of "+std::to_string(shape.cluster)+
                " groups for each molecule, which a part of a device may not have: set OPENMMFLOW_KERNEL_SHAPE=1,"+
                std::to_string(shape.groupSize)+",48000,1 to do without");
    }
    if (findsRoots && includeEnergy)
        checkRoots();
    return 0;
}

/** Whether all roots since the last check were found. */
void CommonCalcFlowForceKernel::checkRoots() {
    std::vector<long long> counts;
    counters.download(counts);
    const long long notConverged = counts[FLOW_ROOTS_MISSED];
    if (notConverged == 0)
        return;
    counts[FLOW_ROOTS_MISSED] = 0;
    counters.upload(counts);
    throw OpenMM::OpenMMException("FlowForce: "+std::to_string(notConverged)+" inverses of transformers were not found to full precision "
            "since the last energy; the weights of the model are too extreme");
}

long long CommonCalcFlowForceKernel::getNumSupportExits() {
    ContextSelector selector(cc);
    std::vector<long long> counts;
    counters.download(counts);
    return counts[FLOW_SUPPORT_EXITS];
}

void CommonCalcFlowForceKernel::copyParametersToContext(ContextImpl&, const FlowForce& force) {
    DevicePlan plan(force, shape);
    plan.constants.resize(constants.getSize());
    ContextSelector selector(cc);
    constants.upload(plan.constants, true);
    if (!plan.weights.empty())
        weights.upload(plan.weights, true);
    // All molecules stay alike, so the order of atoms stays valid.
}

} // namespace OpenMMFlow
