#!/usr/bin/env bash
# Checks that a run's report is whole: every case ok, the page self-contained, the numbers there.
#
#   scripts/check_report.sh RUN_DIR
set -euo pipefail
run=$1
fail() { echo "error: check $run: $*" >&2; exit 2; }

for file in run.json results.jsonl report.json report.html; do
  [ -s "$run/$file" ] || fail "$file is missing or empty"
done
if grep -q -v '"status":"ok"' "$run/results.jsonl"; then
  fail "a case is not ok: $(grep -v '"status":"ok"' "$run/results.jsonl" | head -c 400)"
fi
page=$run/report.html
head -c 15 "$page" | grep -qi '^<!doctype html' || fail "report.html does not begin with a doctype"
grep -q '</html>' "$page" || fail "report.html is cut off"
if grep -Eqi '(src|href)="(https?:)?//' "$page"; then
  fail "report.html reaches outside: $(grep -Eoi '(src|href)="(https?:)?//[^"]*' "$page" | head -n 1)"
fi
for plan in reference accurate fast nvfp4 int4; do
  grep -q ">$plan<" "$page" || fail "plan $plan is not in the page"
done
echo "report is whole: $(wc -l <"$run/results.jsonl") cases, $(wc -c <"$page") bytes of HTML"
