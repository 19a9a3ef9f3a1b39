#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds openmmflow for other versions of OpenMM and runs it in them, and one wheel in other versions of Python. Each in a virtual
# environment of its own below build/compatibility; minutes for each, so not part of ./dev test.
#
#   tests/compatibility.sh openmm 8.4 8.5 8.6          builds and tests for these
#   tests/compatibility.sh python python3.10 python3.12    builds one wheel with the first, tests it in all of them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly root=$PWD/build/compatibility
readonly run=(numpy safetensors h5py tqdm matplotlib mdtraj pytest)
readonly tools=("cmake>=3.26,<5" "ninja>=1.11" "scikit-build-core>=1.1,<2" swig==4.5.1)

say() { printf '==> %s\n' "$*"; }

# Makes an environment unless it is there: environment NAME PYTHON PACKAGE...
environment() {
    local folder=$root/$1 python=$2
    shift 2
    [[ -x $folder/bin/python ]] || "$python" -m venv "$folder"
    # That of an older Python knows no build options.
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "pip>=23.1"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# Files of released versions with their energies, and where FlowForce runs.
try_it() {
    local python=$1
    (cd tests/python && "$python" -m pytest -q -p no:cacheprovider -o cache_dir=/dev/null -c /dev/null --rootdir . --noconftest \
        test_compatibility.py)
    "$python" -m openmmflow.command_line info
}

build() {
    local python=$1 name=$2
    shift 2
    # Paths of other environments in PATH must not win.
    PATH=$(dirname "$python"):$PATH "$python" -m pip "$@" --quiet --no-build-isolation --no-deps \
        -C "build-dir=$root/$name-build" -C cmake.define.OPENMMFLOW_BUILD_TESTS=OFF \
        -C "cmake.define.CMAKE_CXX_COMPILER_LAUNCHER=$(command -v ccache || true)" .
}

for_openmm() {
    local version python
    for version in "$@"; do
        say "OpenMM $version"
        environment "openmm-$version" "${PYTHON:-python3}" "openmm==$version.*" "${run[@]}" "${tools[@]}"
        python=$root/openmm-$version/bin/python
        build "$python" "openmm-$version" install
        try_it "$python"
    done
}

for_python() {
    local interpreter name wheel=
    for interpreter in "$@"; do
        name=python-$("$interpreter" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        say "$name"
        if [[ -z $wheel ]]; then
            environment "$name" "$interpreter" "openmm==8.6.1" "${run[@]}" "${tools[@]}"
            rm -rf "$root/wheels"
            build "$root/$name/bin/python" "$name" wheel --wheel-dir "$root/wheels"
            wheel=$(echo "$root"/wheels/openmmflow-*-abi3-*.whl)
        else
            environment "$name" "$interpreter" "openmm==8.6.1" "${run[@]}"
        fi
        "$root/$name/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$wheel"
        say "$name: $(basename "$wheel")"
        try_it "$root/$name/bin/python"
    done
}

case ${1:-} in
    openmm) shift; for_openmm "$@" ;;
    python) shift; for_python "$@" ;;
    *) sed -n '3,7p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
