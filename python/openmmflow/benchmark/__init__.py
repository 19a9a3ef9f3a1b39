# SPDX-License-Identifier: MIT
"""How fast FlowForce is, next to the same flow in PyTorch and to the classical force field: ``openmmflow benchmark``.

``models`` makes what is measured, ``torch_flow`` is the same in PyTorch, ``systems`` puts both into OpenMM, ``timing`` measures,
``speed`` says what is measured against what, ``targets`` what is demanded, ``accuracy`` and ``conservation`` compare single with
double precision.
"""
