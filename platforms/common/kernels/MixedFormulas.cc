// SPDX-License-Identifier: MIT
// The formulas that follow are for `mixed`: geometry, marginals and the continuation.

#define real mixed
