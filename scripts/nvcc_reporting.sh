#!/bin/sh
# Runs the nvcc command it is given, and keeps beside the object what scripts/check_ptx.sh reads:
# OBJECT.ptxas (registers, shared memory and spills of every kernel) and OBJECT.ptx. The build puts it
# before nvcc, so that looking at the kernels compiles nothing twice.
object=
previous=
for argument in "$@"; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
[ -n "$object" ] || exec "$@"

keep=$object.keep
mkdir -p "$keep" || exit 2
"$@" -Xptxas -v --keep --keep-dir "$keep" 2>"$object.ptxas"
status=$?
grep -v '^ptxas info' "$object.ptxas" | grep -v 'bytes stack frame' >&2
cat "$keep"/*.ptx >"$object.ptx" 2>/dev/null
rm -rf "$keep"
exit $status
