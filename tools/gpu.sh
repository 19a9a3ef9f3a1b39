#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds, tests and measures FlowForce on a machine with a GPU. From the root of the repository:
#
#   tools/gpu.sh CUDA|OpenCL|HIP [wheels]
#
# Needs Python 3.10 or newer and g++. What that Python has installed is used: PyTorch, if it sees the device, is timed next to FlowForce. A folder
# made by tools/gpu_wheels.sh replaces the package index where there is no network. Figures go to build/gpu.json.
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
[[ -x $venv/bin/python ]] || python3 -m venv --system-site-packages "$venv"
python=$PWD/$venv/bin/python
pip=("$python" -m pip install -q --disable-pip-version-check)
"${pip[@]}" "${index[@]}" -r requirements/gpu.txt
if [[ $platform == CUDA ]]; then
    if command -v nvcc >/dev/null; then
        # The toolkit has what OpenMM's library needs.
        "${pip[@]}" "${index[@]}" --no-deps "$(grep ^openmm-cuda requirements/cuda.txt)"
    else
        "${pip[@]}" "${index[@]}" -r requirements/cuda.txt
    fi
    # NVRTC and cuFFT, where the toolkit or NVIDIA's packages have them.
    libraries=$("$python" - <<'END'
import glob, os, sys
folders = [os.path.dirname(os.path.dirname(os.path.realpath(p))) for p in glob.glob("/usr/local/cuda*/bin/nvcc")]
found = [p for f in folders for p in glob.glob(f + "/lib64")]
found += [p for f in sys.path for p in glob.glob(f + "/nvidia/*/lib")]
print(":".join(found))
END
    )
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
# Installed, among the wheels, or as sources of Debian's package.
googletest=
for folder in ${wheels:+"$PWD/$wheels/googletest"} /usr/src/googletest; do
    [[ -n $googletest || ! -e $folder ]] || googletest=$folder
done
PATH=$PWD/$venv/bin:$PATH "${pip[@]}" --no-build-isolation --no-deps -C build-dir=build/gpu -C cmake.define.OPENMMFLOW_BUILD_TESTS=ON \
    -C "cmake.define.OPENMMFLOW_GOOGLETEST=$googletest" .
"$python" -m openmmflow.command_line info --platforms
status=0
export OPENMMFLOW_TEST_PLATFORM=$platform
"$venv/bin/ctest" --test-dir build/gpu -R 'Apart$' --no-tests=error --output-on-failure || status=1
"$python" -m pytest -q -p no:cacheprovider tests/python/test_opencl_platform.py || status=1
"$python" benchmarks/gpu.py "$platform" --json build/gpu.json
"$python" benchmarks/gpu_conservation.py "$platform" --json build/gpu_conservation.json
exit $status
