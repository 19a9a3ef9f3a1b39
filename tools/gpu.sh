#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds, tests and measures FlowForce on a machine with a GPU. From the root of the repository:
#
#   tools/gpu.sh CUDA|OpenCL|HIP [WHEELS] [option...]
#
#   WHEELS               a folder made by tools/gpu_wheels.sh, in place of the package index and of system packages
#   --phases LIST        of build,test,benchmark,conservation; by default all of them. After the build they run in the order given
#   --output FOLDER      for gpu.log and figures, which are written as they come; by default build/gpu-results
#   --minutes N          end after about N minutes: what then runs is stopped, what it has written stays, and what remains is left out
#   --molecules N        in the benchmark
#   --starts N, --picoseconds N
#                        of the conservation of energy; by default 32 and 100. 100 ps are compared with the runs on Reference that the
#                        documentation is about, which would take far longer than those on a GPU; of other lengths Reference runs, too
#
# Needs Python 3.10 or newer with pip and its headers, and g++. What that Python has installed is used, also if it is that of a virtual
# environment: PyTorch, if it sees the device, is timed next to FlowForce. A later call goes on with the build and with the runs in FOLDER.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '3,/^set/{/^set/!s/^# \{0,1\}//p}' tools/gpu.sh >&2; exit 2; }
say() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'gpu.sh: %s\n' "$*" >&2; exit 1; }

# How each phase ended is said last.
summary=() log=/dev/null
summarize() { ((!${#summary[@]})) || printf '==> %s\n' "${summary[@]}" | tee -a "$log" >&2; }
trap summarize EXIT

platform=${1:-}
[[ $platform == CUDA || $platform == OpenCL || $platform == HIP ]] || usage
shift
wheels='' phases=build,test,benchmark,conservation output=build/gpu-results minutes='' molecules=() starts=32 picoseconds=100
if (($#)) && [[ $1 != --* ]]; then
    wheels=$(realpath -e "$1")
    shift
fi
while (($#)); do
    (($# >= 2)) || usage
    case $1 in
        --phases) phases=$2 ;;
        --output) output=$2 ;;
        --minutes) minutes=$2 ;;
        --molecules) molecules=(--molecules "$2") ;;
        --starts) starts=$2 ;;
        --picoseconds) picoseconds=$2 ;;
        *) usage ;;
    esac
    shift 2
done
for phase in ${phases//,/ }; do
    [[ $phase =~ ^(build|test|benchmark|conservation)$ ]] || fail "there is no phase '$phase'; phases are build, test, benchmark and conservation"
done
[[ $minutes =~ ^[0-9]*$ ]] || fail "--minutes takes a whole number"
wanted() { [[ ,$phases, == *,$1,* ]]; }

readonly venv=$PWD/build/gpu-venv build=build/gpu
python=$venv/bin/python
mkdir -p build "$output"
output=$(realpath "$output")
log=$output/gpu.log
status=0 begin=$SECONDS

# measured NAME COMMAND...: run a command within the time that is left. What it says is shown and added to the log.
measured() {
    local name=$1 since=$SECONDS limit=() left code=0 ended=done
    shift
    if [[ -n $minutes ]]; then
        left=$((60 * minutes - (SECONDS - begin)))
        if ((left <= 0)); then
            summary+=("$name: left out, as the time is over")
            return 1
        fi
        # Interrupted, pytest tells what has failed so far.
        limit=(timeout --signal=INT --kill-after=15 "$left")
    fi
    say "$name" 2>&1 | tee -a "$log"
    "${limit[@]}" "$@" </dev/null 2>&1 | tee -a "$log" || code=$?
    if ((code)); then
        ended="failed ($code)"
        [[ -z $minutes ]] || ((SECONDS - begin < 60 * minutes)) || ended="stopped, as the time is over"
    fi
    summary+=("$name: $ended, $((SECONDS - since)) s")
    return $code
}

# --- the environment ---------------------------------------------------------------------------------------------------------

outer=$(command -v python3) || fail "there is no python3"
index=()
if [[ -n $wheels ]]; then
    index=(--no-index --find-links "$wheels")
    export CPLUS_INCLUDE_PATH=$wheels/include${CPLUS_INCLUDE_PATH:+:$CPLUS_INCLUDE_PATH}
    export CMAKE_PREFIX_PATH=$wheels${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# An environment on top of the one of python3, whatever that is: --system-site-packages would pass over a virtual environment.
make_environment() {
    command -v g++ >/dev/null || fail "there is no g++"
    "$outer" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        fail "$outer comes without its headers (Python.h)"
    if [[ ! -x $python ]]; then
        if "$outer" -c 'import pip' 2>/dev/null; then
            "$outer" -m venv --without-pip "$venv"
        else
            "$outer" -m venv "$venv"
        fi
        local folder
        folder=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        "$outer" - >"$folder/outer.pth" <<'END'
import sys
print(*(f"import site; site.addsitedir({p!r})" for p in sys.path if p.endswith("-packages")), sep="\n")
END
    fi
    "$python" -m pip install -q "${index[@]}" -r requirements/gpu.txt || return
    [[ $platform == CUDA ]] || return 0
    if [[ -n $wheels ]] || find_folders "libnvrtc.so.13" "libcufft.so.12" >/dev/null 2>&1; then
        # What OpenMM's library needs is there: in the toolkit or among the packages of PyTorch.
        "$python" -m pip install -q "${index[@]}" --no-deps "$(grep ^openmm-cuda requirements/cuda.txt)"
    else
        # A driver does not take what a newer NVRTC writes.
        local driver packages=(-r requirements/cuda.txt nvidia-cufft)
        driver=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\.[0-9]*\).*/\1/p' | head -n 1)
        [[ $driver != 13.* ]] || packages+=("nvidia-cuda-nvrtc==$driver.*")
        "$python" -m pip install -q "${packages[@]}"
    fi
}

# Where files lie that match patterns, and whether all were found: first in packages of NVIDIA, which those of PyTorch are, then in the toolkit.
find_folders() {
    "$python" - "$@" <<'END'
import glob, os, sys
nvcc = [os.path.realpath(p) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ for p in glob.glob(os.environ[name] + "/bin/nvcc")]
nvcc += [os.path.realpath(p) for p in glob.glob("/usr/local/cuda*/bin/nvcc")]
toolkits = [os.path.dirname(os.path.dirname(p)) for p in nvcc]
roots = [p for f in sys.path for p in sorted(glob.glob(f + "/nvidia/*"), reverse=True)] + toolkits
found = []
for pattern in sys.argv[1:]:
    folders = [f for root in roots for f in (f"{root}/lib", f"{root}/lib64", f"{root}/include") if glob.glob(f"{f}/{pattern}")]
    if not folders:
        print(f"gpu.sh: {pattern} was found neither in packages of NVIDIA nor in a toolkit", file=sys.stderr)
    found += folders[:1]
print(":".join(dict.fromkeys(found)))
sys.exit(len(found) < len(sys.argv)-1)
END
}

if wanted build; then
    make_environment 2>&1 | tee -a "$log" || fail "the Python environment $venv could not be made"
elif [[ ! -x $python ]]; then
    fail "nothing has been built here yet: --phases build,$phases"
fi
export PATH=$venv/bin:$(dirname "$outer"):$PATH
if [[ $platform == CUDA ]]; then
    # The version that OpenMM's library is for. Ahead of others, as that of the toolkit may be another.
    libraries=$(find_folders "libnvrtc.so.13" "libcufft.so.12") || true
    [[ -z $libraries ]] || export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    say "NVRTC and cuFFT: $libraries"
fi

# --- phases ------------------------------------------------------------------------------------------------------------------

if wanted build; then
    # Among the wheels, or as sources of Debian's package, or installed.
    googletest=
    for folder in ${wheels:+"$wheels/googletest"} /usr/src/googletest; do
        [[ -n $googletest || ! -e $folder ]] || googletest=$folder
    done
    options=(-C build-dir="$build" -C cmake.define.OPENMMFLOW_BUILD_TESTS=ON -C "cmake.define.OPENMMFLOW_GOOGLETEST=$googletest")
    if [[ $platform == CUDA ]]; then
        # The headers that cuda.h lies next to, in the toolkit or where the package nvidia-cuda-crt is: PyTorch does not bring it.
        headers=$(find_folders crt/host_defines.h) || true
        options+=(-C "cmake.define.CUDA_HEADERS=${headers:-CUDA_HEADERS-NOTFOUND}")
    fi
    measured "Build" "$python" -m pip install -v --no-build-isolation --no-deps "${index[@]}" "${options[@]}" . ||
        fail "the build failed: $log"
fi
"$python" -m openmmflow.command_line info --platforms 2>&1 | tee -a "$log"
"$python" - "$platform" <<'END' 2>&1 | tee -a "$log" || fail "FlowForce does not run on $platform here"
import sys
import openmm, openmmflow
reason = openmmflow.why_not_supported(sys.argv[1])
if not reason:
    try:
        system = openmm.System()
        for _ in range(2):
            system.addParticle(1)
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(sys.argv[1]))
        print("Device:", context.getPlatform().getPropertyValue(context, "DeviceName"))
    except openmm.OpenMMException as error:
        reason = str(error)
if reason:
    sys.exit(reason)
END
for phase in ${phases//,/ }; do
    case $phase in
        test)
            export OPENMMFLOW_TEST_PLATFORM=$platform
            ctest=$("$python" -c 'import cmake; print(cmake.CMAKE_BIN_DIR)')/ctest
            # Verbose: what a test that is stopped has said so far is not lost.
            measured "C++ tests" "$ctest" --test-dir "$build" -R 'Apart$' --no-tests=error --verbose || status=1
            "$python" -c 'import torch' || say "The Python tests need PyTorch" 2>&1 | tee -a "$log"
            measured "Python tests" "$python" -m pytest -v -p no:cacheprovider --durations=10 tests/python/test_opencl_platform.py || status=1
            ;;
        benchmark)
            measured "Benchmark" "$python" benchmarks/gpu.py "$platform" "${molecules[@]}" --json "$output/gpu.json" || status=1
            ;;
        conservation)
            reference=()
            [[ $picoseconds != 100 ]] || reference=(--reference docs/benchmarks/gpu_conservation-100ps.json)
            measured "Conservation of energy" "$python" benchmarks/gpu_conservation.py "$platform" --starts "$starts" --together "$starts" \
                --picoseconds "$picoseconds" "${reference[@]}" --folder "$output" --json "$output/gpu_conservation.json" || status=1
            ;;
    esac
done
exit $status
