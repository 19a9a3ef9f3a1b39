#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Collects what tools/gpu.sh needs on a machine without network, on one that has it and the same kind of processor:
#
#   tools/gpu_wheels.sh FOLDER PYTHON_VERSION [PACKAGE...]
#
# The version is that of the other machine's Python, say 3.12. Packages are what it lacks; by default what a machine with PyTorch, SciPy, CMake and
# the CUDA toolkit does not have. Headers of nlohmann-json, xsimd and zlib and the sources of GoogleTest come from this machine's Debian packages.
# All of it is 37 MB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=${1:?a folder} version=${2:?the version of Python there}
shift 2
packages=("$@")
if ((${#packages[@]} == 0)); then
    # MDTraj does not take every version of pyparsing, which Matplotlib has brought there.
    packages=(openmm==8.6.1 "$(grep ^openmm-cuda requirements/cuda.txt)" swig==4.5.1 scikit-build-core pathspec mdtraj 'pyparsing!=3.3.3'
        safetensors)
fi
options=(--no-deps --only-binary=:all: --implementation cp --python-version "$version")
for tag in manylinux_2_{35,34,31,28,27,24,17,12}_x86_64 manylinux2014_x86_64 manylinux2010_x86_64; do
    options+=(--platform "$tag")
done
mkdir -p "$folder"
python3 -m pip download --quiet --disable-pip-version-check "${options[@]}" -d "$folder" "${packages[@]}"
for package in nlohmann-json3-dev libxsimd-dev zlib1g-dev; do
    dpkg -L "$package" | grep -E '/(include|cmake|pkgconfig)/' | while read -r file; do
        [[ ! -f $file ]] || install -D -m 644 "$file" "$folder/${file#/usr/}"
    done
done
cp -r /usr/src/googletest "$folder/"
# The link's target: the package of the library itself may be all that is there.
install -D "$(realpath "$(dpkg -L zlib1g-dev | grep 'libz\.so$')")" "$folder/lib/libz.so"
