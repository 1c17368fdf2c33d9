#!/usr/bin/env bash
# What the compiler made of the CUDA kernels, without a GPU: prints registers, shared memory, stack
# and spills of each, and fails if one spills that scripts/ptx_claims.txt does not excuse, or lacks an
# instruction that the same file says it is built on. Reads what the build kept beside its objects
# (scripts/nvcc_reporting.sh), so it takes a second.
#
#   scripts/check_ptx.sh [BUILD_DIR]      (default: build/release)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/kernel_claims.sh

build=${1:-build/release}
objects=$build/kernels/CMakeFiles/moebench_cuda.dir
fail() { echo "error: check kernels of $build: $*" >&2; exit 2; }
[ -d "$objects" ] || fail "no CUDA kernels there (configure with -DMOEBENCH_CUDA=ON and build moebench_cuda)"

# One line per kernel and architecture: file, architecture, registers, shared, stack, stores, loads, name.
kernels_of() {
  awk -v file="$1" '
    /Compiling entry function/ { split($0, quoted, "\047"); name = quoted[2]; arch = quoted[4] }
    /bytes stack frame/        { stack = $1; stores = $5; loads = $9 }
    /Used [0-9]+ registers/ {
      shared = 0
      for (i = 2; i <= NF; ++i) if ($i ~ /^smem/) shared = $(i - 2)
      for (i = 1; i < NF; ++i) if ($i == "Used") registers = $(i + 1)
      print file, arch, registers, shared, stack, stores, loads, name
    }' "$2" | readable_names
}

printf '%-38s %-8s %9s %8s %6s %7s  %s\n' variant arch registers shared stack spilled kernel
architectures=
for source in kernels/*/cuda_*.cu; do
  name=${source#kernels/}
  name=${name%.cu}
  report=$objects/$name.cu.o.ptxas
  if [ ! -s "$report" ] || [ ! -s "$objects/$name.cu.o.ptx" ]; then
    problem "$name: no report (build moebench_cuda)"
    continue
  fi
  while read -r file arch registers shared stack stores loads kernel; do
    printf '%-38s %-8s %9s %8s %6s %7s  %s\n' "$file" "$arch" "$registers" "$shared" "$stack" \
      "$((stores + loads))" "$kernel"
    [[ $architectures == *"$arch"* ]] || architectures="$architectures $arch"
    if [ "$((stack + stores + loads))" -gt 0 ]; then
      excuse=$(excuse_of "$file" "$kernel")
      if [ -n "$excuse" ]; then
        echo "  (allowed: $excuse)"
      else
        problem "$file: $kernel keeps values in local memory (stack $stack, spilled $stores + $loads bytes)"
      fi
    fi
  done < <(kernels_of "$name" "$report")
  # For one: wgmma that is serialized, since the compiler cannot keep its registers apart.
  if grep -q 'Potential Performance Loss' "$report"; then
    problem "$name: $(grep -m 1 -o 'Potential Performance Loss.*' "$report" | c++filt)"
  fi
done

checked=0
while read -r verb pattern instruction; do
  [ "$verb" = needs ] || continue
  if [[ $instruction == wgmma* && $architectures != *sm_90a* ]]; then
    echo "not checked: $pattern needs $instruction (this build has no sm_90a)"
    continue
  fi
  matched=0
  for source in kernels/*/cuda_*.cu; do
    name=${source#kernels/}
    name=${name%.cu}
    # shellcheck disable=SC2053  # a pattern on purpose
    [[ $name == $pattern ]] || continue
    matched=1
    [ -s "$objects/$name.cu.o.ptx" ] || continue
    checked=$((checked + 1))
    grep -Eq -- "$instruction" "$objects/$name.cu.o.ptx" ||
      problem "$name: no instruction $instruction in its PTX"
  done
  [ $matched = 1 ] || problem "$claims: no kernel is called $pattern"
done <"$claims"

echo "$checked claims about instructions checked, $problems problems"
[ $problems = 0 ] || exit 2
