#!/usr/bin/env bash
# Whether speed comparisons keep their word on this machine: A/A runs must say "no difference",
# A/B runs with a planted slowdown must say SLOWER. Prints a table and writes it as JSON.
#
#   bench/detect.sh [OUT_DIR]
#
# Can be stopped and started again: a run whose result lies in OUT_DIR is not repeated. Settings, by
# environment:
#   PROGRAM  the moebench to test            (build/release/bin/moebench)
#   MODEL    nano, or a directory            (nano)
#   AA, AB   number of runs of each kind     (20, 10)
#   BUDGET   seconds of one run              (90)
#   PERCENT  size of the planted slowdown    (3)
#   OPTIONS  more options for moebench bench (-p 0 -n 128)
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-detect-out}
program=$(realpath "${PROGRAM:-build/release/bin/moebench}")
model=${MODEL:-nano}
budget=${BUDGET:-90}
percent=${PERCENT:-3}
read -r -a options <<<"${OPTIONS:--p 0 -n 128}"
[ -x "$program" ] || {
  echo "error: test comparisons: there is no program $program (build it, or set PROGRAM)" >&2
  exit 2
}
mkdir -p "$out"
# The base is the same program without the slowdown that this script plants into the other arm.
base=$out/base.sh
printf '#!/bin/sh\nunset MOEBENCH_TEST_SPIN_PERCENT\nexec "%s" "$@"\n' "$program" >"$base"
chmod +x "$base"

# The text that follows "NAME": in a comparison's JSON, at its first place.
field() {
  sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p" "$2" | head -n 1
}

one_run() { # KIND NUMBER SLOWDOWN
  local name=$1-$2 slowdown=$3
  local folder=$out/$name
  [ -s "$folder/compare.json" ] && return 0
  rm -rf "$folder.part"
  local code=0
  MOEBENCH_TEST_SPIN_PERCENT=$slowdown "$program" bench --model "$model" --plan fast \
    --against-program "$base" --budget "$budget" --seed "$((1000 * slowdown + $2))" \
    "${options[@]}" --out "$folder.part" >"$out/$name.txt" 2>&1 || code=$?
  if [ "$code" -ne 0 ] || [ ! -s "$folder.part/compare.json" ]; then
    echo "error: run $name ended with code $code:" >&2
    tail -n 5 "$out/$name.txt" >&2
    exit 2
  fi
  rm -rf "$folder"
  mv "$folder.part" "$folder"
}

rows=()
declare -A verdicts
tell() { # KIND NUMBER SLOWDOWN
  local file=$out/$1-$2/compare.json verdict ratio visible elapsed
  verdict=$(field verdict "$file")
  ratio=$(field ratio "$file")
  visible=$(field smallest_visible "$file")
  elapsed=$(field elapsed_s "$file")
  verdicts[$1-$verdict]=$((${verdicts[$1-$verdict]:-0} + 1))
  printf '%-4s %3s  planted %s %%  %-12s ratio %-8.6s visible %-8.6s %5.1f s\n' \
    "$1" "$2" "$3" "$verdict" "$ratio" "$visible" "$elapsed"
  rows+=("{\"kind\": \"$1\", \"run\": $2, \"planted_percent\": $3, \"verdict\": \"$verdict\", \"ratio\": $ratio, \"smallest_visible\": $visible, \"elapsed_s\": $elapsed}")
}

count_aa=${AA:-20}
count_ab=${AB:-10}
most=$((count_aa > count_ab ? count_aa : count_ab))
# In turns, so that a stopped script has some of both.
for ((i = 1; i <= most; ++i)); do
  if ((i <= count_aa)); then
    one_run aa "$i" 0
    tell aa "$i" 0
  fi
  if ((i <= count_ab)); then
    one_run ab "$i" "$percent"
    tell ab "$i" "$percent"
  fi
done

alarms=$((${verdicts[aa-FASTER]:-0} + ${verdicts[aa-SLOWER]:-0}))
seen=${verdicts[ab-SLOWER]:-0}
echo
echo "A/A: no difference in $((count_aa - alarms)) of $count_aa runs (SAME ${verdicts[aa-SAME]:-0}, INCONCLUSIVE ${verdicts[aa-INCONCLUSIVE]:-0})"
echo "A/B: $percent % slower seen in $seen of $count_ab runs (INCONCLUSIVE ${verdicts[ab-INCONCLUSIVE]:-0})"
{
  printf '{"schema": "moebench.detect/1", "program": "%s", "model": "%s", "budget_s": %s, "planted_percent": %s,\n' \
    "$("$program" --version)" "$model" "$budget" "$percent"
  printf ' "aa_runs": %s, "aa_no_difference": %s, "ab_runs": %s, "ab_seen": %s,\n "runs": [\n' \
    "$count_aa" "$((count_aa - alarms))" "$count_ab" "$seen"
  for ((i = 0; i < ${#rows[@]}; ++i)); do
    printf '  %s%s\n' "${rows[i]}" "$([ "$i" -lt $((${#rows[@]} - 1)) ] && echo ,)"
  done
  printf ' ]}\n'
} >"$out/detect.json"
echo "written: $out/detect.json"
