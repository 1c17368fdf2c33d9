# Sourced by check_ptx.sh and check_sass.sh: names of kernels, and what scripts/ptx_claims.txt says of them.

claims=scripts/ptx_claims.txt
problems=0
problem() { echo "FAIL: $*"; problems=$((problems + 1)); }

# Mangled names on standard input, as people write them: attention::attend<mxfp4,64>.
readable_names() {
  local formats=() format script='s/_GLOBAL__N__[0-9A-Za-z_]*:://g; s/(anonymous namespace):://g; s/moebench:://g; s/, /,/g'
  read -ra formats < <(sed -n '/#define MOEBENCH_FORMATS/,/[^\\]$/p' kernels/formats/format.h | grep -o 'X([a-z0-9_]*)' |
    tr -d 'X()' | paste -s -d ' ')
  for format in "${!formats[@]}"; do script="$script; s/(Format)$format\b/${formats[format]}/g"; done
  c++filt -p | sed -e "$script"
}

# excuse_of VARIANT KERNEL: why it may keep values in local memory, if it may.
excuse_of() {
  local verb variant kernel reason
  while read -r verb variant kernel reason; do
    # Patterns on purpose.
    # shellcheck disable=SC2053
    [[ $verb == may_spill && $1 == $variant && $2 == $kernel ]] && { echo "$reason"; return; }
  done <"$claims"
  return 0
}
