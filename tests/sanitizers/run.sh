#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs the tests of model files and the fuzz targets, which evaluate models and make Contexts, under the address and undefined behaviour
# sanitizers, and Contexts in many threads under the thread sanitizer: run.sh RESULTS_FOLDER. Called by ./dev sanitize, with .venv/bin in PATH.
#
# With a clang that has libFuzzer, fuzz targets look for new inputs; with g++ alone they replay the committed corpus.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly results=$1
export LSAN_OPTIONS=suppressions=$PWD/tests/sanitizers/leak.supp:print_suppressions=0
status=0

has_libfuzzer() {
    local probe
    probe=$(mktemp -d)
    echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' >"$probe/probe.cpp"
    clang++ -fsanitize=fuzzer,address "$probe/probe.cpp" -o "$probe/probe" 2>/dev/null && "$probe/probe" -runs=1 2>/dev/null
    local found=$?
    rm -rf "$probe"
    return $found
}

# run PRESET TARGET...: configure, build and run these programs.
run() {
    local preset=$1 build=build/$1 pattern
    shift
    local options=()
    command -v ccache >/dev/null && options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    pattern=$(IFS='|'; echo "$*")
    if ! cmake --preset "$preset" "${options[@]}" >"$build.log" 2>&1 || ! cmake --build --preset "$preset" --target "$@" >>"$build.log" 2>&1
    then
        tail -n 40 "$build.log"
        status=1
        return
    fi
    ctest --preset "$preset" -R "^($pattern)\$" --no-tests=error --output-junit "$results/Sanitizers-$preset.xml" || status=1
}

mkdir -p "$results"
memory=sanitize
has_libfuzzer || { memory=sanitize-gcc; echo "no clang with libFuzzer: the fuzz targets replay their corpus"; }
run "$memory" TestFlowModel FuzzModelFile FuzzFlowForceProxy
run thread TestFlowForceThreads
exit $status
