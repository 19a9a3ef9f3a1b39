#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs the C++ suite under the address and undefined behaviour sanitizers, with leaks looked for, and Contexts in many threads under the thread
# sanitizer: run.sh RESULTS_FOLDER [--short]. With .venv/bin in PATH.
#
# The short part, which belongs to ./dev test, is built by g++ for this machine's processor alone and goes without the longest tests. ./dev sanitize
# runs all, with kernels of every instruction set, and the fuzz targets under libFuzzer and Atheris where there are clang and Atheris; otherwise these
# change the committed corpus at random.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly results=$1 length=${2:-}
# Where addresses are more random than the thread sanitizer of older compilers expects it does not start.
fixed_addresses=(setarch "$(uname -m)" --addr-no-randomize)
"${fixed_addresses[@]}" true 2>/dev/null || fixed_addresses=()
# Another clone of the same sources finds what this one has compiled.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
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

# run PRESET LENGTH TARGET...: configure, build and run these programs. Their tests are counted one by one.
run() {
    local preset=$1 build=build/$1 pattern options=("-DOPENMMFLOW_TEST_PROGRAMS=$2")
    shift 2
    command -v ccache >/dev/null && options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    pattern=$(IFS='|'; echo "$*")
    echo "$preset: building"
    if ! cmake --preset "$preset" "${options[@]}" >"$build.log" 2>&1 || ! cmake --build --preset "$preset" --target "$@" >>"$build.log" 2>&1
    then
        tail -n 40 "$build.log"
        status=1
        return
    fi
    rm -rf "${results:?}/$preset"
    GTEST_OUTPUT="xml:$results/$preset/" "${fixed_addresses[@]}" ctest --preset "$preset" -R "^($pattern)(_.*)?\$" --no-tests=error \
        -j "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}" --output-junit "$results/Sanitizers-$preset.xml" || status=1
    python tests/summarize.py "$results/$preset"/*.xml || status=1
}

# The importers are Python.
fuzz_importer() {
    if python -m pip install --quiet --disable-pip-version-check -r requirements/fuzz.txt 2>/dev/null; then
        mkdir -p build/importer
        python tests/fuzz/fuzz_importer.py -max_total_time=10 -verbosity=0 -print_final_stats=1 "-artifact_prefix=build/importer-" \
            build/importer tests/fuzz/corpus/importer || status=1
    else
        echo "no Atheris for this Python: the tests replay the importer's corpus"
    fi
}

mkdir -p "$results"
if [[ $length == --short ]]; then
    run sanitize-short SHORT TestFlowModel TestEngine TestFlowForce FuzzModelFile FuzzFlowForceProxy
    run thread SHORT TestFlowForceThreads
    exit $status
fi
memory=sanitize
has_libfuzzer || { memory=sanitize-gcc; echo "no clang with libFuzzer: the fuzz targets change their corpus at random"; }
run "$memory" ALL TestFlowModel TestEngine TestFlowForce TestFlowForceThreads FuzzModelFile FuzzFlowForceProxy
run thread ALL TestFlowForceThreads
fuzz_importer
exit $status
