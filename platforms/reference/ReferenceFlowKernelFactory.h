// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_REFERENCEFLOWKERNELFACTORY_H_
#define OPENMMFLOW_REFERENCEFLOWKERNELFACTORY_H_

#include <openmm/KernelFactory.h>

namespace OpenMMFlow {

/** Makes the kernel of FlowForce for the platforms Reference and CPU. */
class ReferenceFlowKernelFactory : public OpenMM::KernelFactory {
public:
    OpenMM::KernelImpl* createKernelImpl(std::string name, const OpenMM::Platform& platform, OpenMM::ContextImpl& context) const override;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_REFERENCEFLOWKERNELFACTORY_H_
