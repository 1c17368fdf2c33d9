#!/usr/bin/env bash
# The main job, from a fresh machine: installs what is missing, builds, and compares several plans
# of the model that ships by speed, accuracy and fidelity. Prints where the report is.
#
#   scripts/demo.sh [--out DIR] [any option of `moebench run`]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/packages.sh

out=moebench-out/demo-$(date -u +%Y%m%d-%H%M%S)
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    *) arguments+=("$1"); shift ;;
  esac
done

ensure_packages $BUILD_PACKAGES
build "$RELEASE_PRESET" moebench
exec "build/$RELEASE_PRESET/bin/moebench" run demo --out "$out" "${arguments[@]}"
