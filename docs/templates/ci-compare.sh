#!/usr/bin/env bash
# A gate for CI: runs a suite with what is new, compares it with a base, leaves documents behind and ends
# with the verdict as exit code: 0 pass, 1 regression, 2 something broke, 3 usage, 4 inconclusive.
# The templates for GitHub Actions and GitLab call it; it works the same on a desk.
#
#   ci-compare.sh --suite suite.json --base-program old/moebench [--runs 3] [--gate gate.json] ...
#   ci-compare.sh --suite suite.json --baseline history:main --db URL [--gate gate.json] ...
#
#   --suite FILE          the suite; the same for both sides
#   --program PATH        the new moebench (default: moebench)
#   --base-program PATH   the base's: both run the suite in turns, so that a slow hour hits both
#   --baseline history:N  or: the last good runs of that name in the history --db
#   --runs N              runs a side (default 3: with several, how much runs differ is measured)
#   --gate FILE           margins, bounds, allowed formats
#   --inconclusive-ok     0 instead of 4
#   --set KEY=VALUE       as of `moebench run`; repeatable
#   --out DIR             where it all goes (default moebench-ci)
#   --remember NAME       afterwards add the new runs to the history --db; as bad ones if the gate said no
set -euo pipefail

program=moebench base_program= baseline= db= suite= gate= runs=3 out=moebench-ci remember=
flags=() settings=()
usage() { echo "error: compare in CI: $*; see the top of $0" >&2; exit 3; }
while [ $# -gt 0 ]; do
  [ "$1" = --inconclusive-ok ] || [ $# -gt 1 ] || usage "$1 needs a value"
  case $1 in
    --suite) suite=$2; shift 2 ;;
    --program) program=$2; shift 2 ;;
    --base-program) base_program=$2; shift 2 ;;
    --baseline) baseline=$2; shift 2 ;;
    --db) db=$2; shift 2 ;;
    --runs) runs=$2; shift 2 ;;
    --gate) gate=$2; shift 2 ;;
    --inconclusive-ok) flags+=(--inconclusive-ok); shift ;;
    --set) settings+=(--set "$2"); shift 2 ;;
    --out) out=$2; shift 2 ;;
    --remember) remember=$2; shift 2 ;;
    *) usage "unknown word '$1'" ;;
  esac
done
[ -n "$suite" ] || usage "give --suite FILE"
[[ -n $base_program && -z $baseline || -z $base_program && -n $baseline ]] ||
  usage "give either --base-program or --baseline"
[[ $runs =~ ^[1-9][0-9]*$ ]] || usage "--runs '$runs' is no number"
[ -z "$gate" ] || flags+=(--gate "$gate")
database=()
[ -z "$db" ] || database=(--db "$db")

run_suite() {  # PROGRAM FOLDER
  local code=0
  "$1" run "$suite" --out "$2" "${settings[@]}" || code=$?
  # A case that failed is for the comparison to judge; a run without records is no run.
  if [ "$code" -ne 0 ] && { [ "$code" -ne 2 ] || [ ! -s "$2/results.jsonl" ]; }; then
    echo "error: compare in CI: $1 did not run the suite (exit code $code)" >&2
    exit 2
  fi
}
for ((i = 1; i <= runs; ++i)); do
  # New and old take turns in being first.
  if [ -n "$base_program" ] && ((i % 2 == 1)); then run_suite "$base_program" "$out/base/$i"; fi
  run_suite "$program" "$out/new/$i"
  if [ -n "$base_program" ] && ((i % 2 == 0)); then run_suite "$base_program" "$out/base/$i"; fi
done

if [ -n "$baseline" ]; then
  sides=(--baseline "$baseline" "${database[@]}" "$out/new")
else
  sides=("$out/base" "$out/new")
fi
verdict=0
"$program" compare "${sides[@]}" "${flags[@]}" || verdict=$?
for format in markdown:md junit:xml json:json; do
  "$program" compare "${sides[@]}" "${flags[@]}" --format "${format%:*}" -o "$out/compare.${format#*:}" \
    >/dev/null 2>&1 || true
done
"$program" report "$out"/new/* -o "$out/report.html" --json "$out/report.json" >/dev/null
"$program" export "$out/new/1" --format bmf -o "$out/bmf.json"
for better in higher lower; do
  "$program" export "$out/new/1" --format action-benchmark --better "$better" \
    -o "$out/$better.json" || true  # a suite may have no such metric
done

# A step's summary may hold 1 MiB; the Markdown is made to fit a comment's 64 KiB.
if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -s "$out/compare.md" ]; then
  cat "$out/compare.md" >>"$GITHUB_STEP_SUMMARY"
fi
if [ -n "$remember" ]; then
  bad=()
  [ "$verdict" -eq 0 ] || [ "$verdict" -eq 4 ] || bad=(--bad)
  "$program" history add "$out/new" "${database[@]}" --name "$remember" \
    --commit "${GITHUB_SHA:-${CI_COMMIT_SHA:-}}" "${bad[@]}"
fi
exit "$verdict"
