#!/usr/bin/env bash
# All tests, from a fresh machine: installs what is missing, builds and runs the tests in release
# mode, then the same under AddressSanitizer and UBSan, with the fuzz entries over their seeds.
#
#   scripts/test.sh [release|asan|all]      (default: all)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/packages.sh

which=${1:-all}
case $which in
  release | asan | all) ;;
  *) echo "error: run tests: unknown set '$which' (known: release, asan, all)" >&2; exit 3 ;;
esac
ensure_packages $BUILD_PACKAGES $TEST_PACKAGES

took=()
for set in release asan; do
  [ "$which" = all ] || [ "$which" = "$set" ] || continue
  preset=$RELEASE_PRESET
  [ "$set" = release ] || preset=$ASAN_PRESET
  echo "== $preset: build"
  begun=$SECONDS
  build "$preset" all
  built=$SECONDS
  echo "== $preset: test"
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j "$(nproc)" --timeout 900
  took+=("$preset: built in $((built - begun)) s, tested in $((SECONDS - built)) s")
done
printf '%s\n' "${took[@]}"
