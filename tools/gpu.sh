#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds and measures FlowForce on a machine with a GPU. From the root of the repository:
#
#   tools/gpu.sh CUDA|OpenCL|HIP [wheels]
#
# Needs Python 3.10 or newer and g++. A folder of wheels replaces the package index where there is no network: those of requirements/gpu.txt,
# nlohmann-json, xsimd and zlib headers under wheels/include.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

platform=${1:?which platform: CUDA, OpenCL or HIP}
wheels=${2:-}
venv=build/gpu-venv
index=()
if [[ -n $wheels ]]; then
    index=(--no-index --find-links "$wheels")
    export CPLUS_INCLUDE_PATH=$PWD/$wheels/include${CPLUS_INCLUDE_PATH:+:$CPLUS_INCLUDE_PATH}
    export CMAKE_PREFIX_PATH=$PWD/$wheels${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
fi
[[ -x $venv/bin/python ]] || python3 -m venv "$venv"
pip=("$venv/bin/python" -m pip install -q --disable-pip-version-check)
"${pip[@]}" "${index[@]}" -r requirements/gpu.txt
[[ $platform != CUDA ]] || "${pip[@]}" "${index[@]}" --no-deps -r requirements/cuda.txt
PATH=$PWD/$venv/bin:$PATH "${pip[@]}" --no-build-isolation --no-deps -C build-dir=build/gpu -C cmake.define.OPENMMFLOW_BUILD_TESTS=OFF .
"$venv/bin/openmmflow" info --platforms
"$venv/bin/python" benchmarks/gpu.py "$platform" --json build/gpu.json
