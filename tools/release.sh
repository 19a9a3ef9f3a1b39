#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Makes dist/: the sdist, a wheel built from it, and a wheel of the training component; then installs sdist and wheel, each into a fresh
# environment, and runs tests/smoke.py there. From the root of the repository, with the Python that is to build:
#
#   tools/release.sh PYTHON
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:?which Python builds? ./dev release uses that of .venv}

rm -rf dist build/release
# The plugin for CUDA, too: it loads where openmm[cuda12] or openmm[cuda13] is installed.
export CMAKE_ARGS="${CMAKE_ARGS:-} -DOPENMMFLOW_INSTALL_ALL_PLUGINS=ON -DOPENMMFLOW_CUDA_DIR=$PWD/build/cuda"
if command -v ccache >/dev/null; then
    # pip and build work in folders that are named at random.
    export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=/ CCACHE_NOHASHDIR=1
fi
"$python" -m build --no-isolation --outdir dist .
"$python" -m pip wheel -q --no-build-isolation --no-deps -C cmake.define.OPENMMFLOW_NATIVE=OFF -w dist ./training

for kind in whl tar.gz; do
    venv=build/release/${kind%%.*}
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check dist/openmmflow-[0-9]*."$kind"
    (cd build/release && "$OLDPWD/$venv/bin/python" "$OLDPWD/tests/smoke.py")
done
ls -l dist
