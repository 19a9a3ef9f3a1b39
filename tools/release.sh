#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Makes dist/: the sdist of openmmflow and a wheel built from it, with the manylinux tag that its symbols allow; the sdist of openmmflow-training and a
# wheel for the PyTorch of the Python that builds. Then installs sdists and wheel into fresh environments, and runs tests/smoke.py and
# tests/smoke_training.py there. From the root of the repository, with the Python that is to build:
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
"$python" -m build --no-isolation --outdir build/release/built .
mkdir -p dist
mv build/release/built/*.tar.gz dist
# OpenMM's libraries are those of the openmm wheel, never copies.
PATH=$(dirname "$python"):$PATH "$python" -m auditwheel repair --exclude 'libOpenMM*.so' --wheel-dir dist build/release/built/*.whl
"$python" tools/training_sdist.py dist
"$python" -m pip wheel -q --no-build-isolation --no-deps -C cmake.define.OPENMMFLOW_NATIVE=OFF -w dist ./training

for kind in whl tar.gz; do
    venv=build/release/${kind%%.*}
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check dist/openmmflow-[0-9]*."$kind"
    (cd build/release && "$OLDPWD/$venv/bin/python" "$OLDPWD/tests/smoke.py")
done

# An extension of PyTorch is built beside the one that it will run with.
fresh=build/release/whl/bin/python
"$fresh" -m pip install -q --disable-pip-version-check -r requirements/torch.txt "scikit-build-core>=1.1,<2" "cmake>=3.26,<5" ninja
PATH=$PWD/build/release/whl/bin:$PATH "$fresh" -m pip install -q --disable-pip-version-check --no-build-isolation \
    -C cmake.define.OPENMMFLOW_NATIVE=OFF dist/openmmflow_training-*.tar.gz
(cd build/release && "$OLDPWD/$fresh" "$OLDPWD/tests/smoke_training.py")
ls -l dist
