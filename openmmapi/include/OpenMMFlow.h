// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_H_
#define OPENMMFLOW_H_

#include "FlowForce.h"
#include "PluginRegistration.h"
#include "model/FlowModel.h"

#endif // OPENMMFLOW_H_
