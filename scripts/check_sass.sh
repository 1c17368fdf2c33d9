#!/usr/bin/env bash
# Looks at the machine code of the CUDA kernels, as the GPU will run it: no kernel may touch local
# memory (LDL, STL) that scripts/ptx_claims.txt does not excuse, and the instructions that the same
# file claims must be there. Needs cuobjdump and nvdisasm (CUDA toolkit), no GPU.
#
#   scripts/check_sass.sh [PROGRAM|OBJECT]      (default: build/release/bin/moebench)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/kernel_claims.sh

program=${1:-build/release/bin/moebench}
fail() { echo "error: check machine code of $program: $*" >&2; exit 2; }
[ -f "$program" ] || fail "there is no such file"
for tool in cuobjdump nvdisasm; do
  command -v $tool >/dev/null || fail "$tool is not installed (it comes with the CUDA toolkit)"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# "variant opcode count", and "variant LOCAL kernel count" for accesses to local memory.
cuobjdump --dump-sass "$program" | awk '
  /^identifier = / { variant = $3; sub(/.*kernels\//, "", variant); sub(/\.cu$/, "", variant) }
  /^\t\tFunction : / { kernel = $3 }
  /^ +\/\*[0-9a-f]+\*\/ +[@A-Z]/ {
    opcode = $2 ~ /^@/ ? $3 : $2
    ++count[variant " " opcode]
    if (opcode ~ /^(LDL|STL)/) ++local[variant " LOCAL " kernel]
  }
  END {
    for (key in count) print key, count[key]
    for (key in local) print key, local[key]
  }' | readable_names | sort >"$work/table"
[ -s "$work/table" ] || fail "no CUDA machine code in it"

while read -r variant _ kernel accesses; do
  [ -n "$(excuse_of "$variant" "$kernel")" ] ||
    problem "$variant: $kernel has $accesses instructions on local memory"
done < <(grep ' LOCAL ' "$work/table" || true)

while read -r verb pattern instruction; do
  [ "$verb" = sass ] || continue
  for variant in $(cut -d ' ' -f 1 "$work/table" | sort -u); do
    # shellcheck disable=SC2053  # a pattern on purpose
    [[ $variant == $pattern ]] || continue
    found=$(awk -v v="$variant" -v i="^($instruction)" '$1 == v && $2 ~ i { sum += $3 } END { print sum + 0 }' \
      "$work/table")
    printf '%-38s %-28s %8d\n' "$variant" "$instruction" "$found"
    [ "$found" -gt 0 ] || problem "$variant: no $instruction in its machine code"
  done
done <"$claims"

echo "$(cut -d ' ' -f 1 "$work/table" | sort -u | wc -l) variants looked at, $problems problems"
[ $problems = 0 ] || exit 2
