#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command of at most ten minutes (and the build, if there
# is none yet): correctness of every CUDA kernel and plan, the sanitizer, the machine code, speed.
#
#   scripts/gpu_check.sh [--out DIR] [--budget SECONDS] [--load]
#
# --load also times what takes long: 128 sequences at once, and serving prompts and answers of 1000
# tokens, 1,536 at once (120b: 768), which is about 5 minutes more and takes up to 130 GB.
#
# Runs $MOEBENCH_PROGRAM, a `moebench` built with CUDA, or builds one in build/gpu, which takes the CUDA
# toolkit, CMake and the packages of scripts/packages.sh. Checks of correctness share the GPU and the
# processors; what is timed has both for itself. Each step leaves DIR/STEP.json and its output;
# started again with the same DIR, only what is missing runs (delete a STEP.json to repeat it). Ends
# with a table, DIR/gpu_check.json, and DIR/report.html of the suites.
#
# $MOEBENCH_SCRATCH (else DIR) holds the random models meanwhile: 14 GB, then 65 GB; memory (/dev/shm)
# is quickest.
#
# Exit codes: 0 all steps that could run passed, 2 one failed or there is no GPU, 4 some are left.
set -uo pipefail
[ -z "${MOEBENCH_PROGRAM:-}" ] || MOEBENCH_PROGRAM=$(realpath -m "$MOEBENCH_PROGRAM")
cd "$(dirname "$0")/.." || exit 2

# plan=largest mean KL divergence from the reference plan, in nats, on the golden model and on nano
PLANS="cuda_reference=1e-6 cuda_accurate=1e-6 cuda=1e-2 cuda_invariant=1e-2"
# What the suites time: gpt-oss as published engines run it (bf16 cache); the same with more ops in one
# launch, which plans ask for, with each step finished before the next, with one token's experts in other
# launches, and with their router at the end of attention's; with one order of sums for every batch (by two
# kernels of experts); and with dense layers and cache in 8 bits, with attention's half of a layer in one
# launch and apart. What `fast` took before (experts launch by launch, or by cuda_direct_bf16) is in the
# published runs.
plan_of() {  # NAME OPS FIELDS
  printf '{"name": "%s", "backend": "cuda", "ops": {%s}, %s}' "$@"
}
AS_SHIPPED="$(plan_of "as shipped" '"default": "fast"' '"kv": "bf16"')"
# One order of sums for every batch by variants that are for decoding, and slow at prompts: what those of
# the family `invariant` cost.
INVARIANT_STREAMS="$(plan_of "invariant, streams" '"default": "invariant", "linear": "cuda_stream_bf16",
    "attention": "cuda_decode_mma", "moe_experts": "cuda_direct_bf16"' '"kv": "bf16"')"
INVARIANT_BLOCKS="$(plan_of "invariant, blocks" \
  '"default": "invariant", "moe_experts": "cuda_grouped_blocks_fp8"' '"kv": "bf16"')"
FUSED="$(plan_of "as shipped, fused" '"default": "fast"' '"kv": "bf16", "fuse": true')"
WAITS="$(plan_of "as shipped, no overlap" '"default": "fast"' '"kv": "bf16", "overlap": false')"
READERS="$(plan_of "as shipped, readers" \
  '"default": "fast", "moe_experts": "cuda_one_launch_readers_int8+cuda_grouped_fp8"' '"kv": "bf16"')"
BLOCKS="$(plan_of "as shipped, blocks in one launch" \
  '"default": "fast", "moe_experts": "cuda_one_launch_blocks_fp8+cuda_grouped_fp8"' '"kv": "bf16"')"
ROUTED="$(plan_of "as shipped, routed ahead" \
  '"default": "fast", "attention": "cuda_one_launch_routed_bf16+cuda_flash_wgmma"' '"kv": "bf16"')"
ROUTED_BLOCKS="$(plan_of "as shipped, blocks in one launch, routed ahead" \
  '"default": "fast", "attention": "cuda_one_launch_routed_bf16+cuda_flash_wgmma",
   "moe_experts": "cuda_one_launch_blocks_fp8+cuda_grouped_fp8"' '"kv": "bf16"')"
FP8_DENSE='"attention": "fp8_e4m3", "unembedding": "fp8_e4m3", "kv": "fp8_e4m3"'
LOAD_PLANS="$AS_SHIPPED"
SUITE_PLANS="$AS_SHIPPED,
           $FUSED,
           $ROUTED_BLOCKS"
SUITE_PLANS_20B="$SUITE_PLANS,
           $(plan_of invariant '"default": "invariant"' '"kv": "bf16"'),
           $WAITS,
           $READERS,
           $BLOCKS,
           $ROUTED,
           $INVARIANT_BLOCKS,
           $(plan_of "fp8 dense" '"default": "fast"' "$FP8_DENSE"),
           $(plan_of "fp8 dense, blocks in one launch, routed ahead" \
             '"default": "fast", "attention": "cuda_one_launch_routed_bf16+cuda_flash_wgmma",
              "moe_experts": "cuda_one_launch_blocks_fp8+cuda_grouped_fp8"' "$FP8_DENSE"),
           $(plan_of "fp8 dense, launches apart" \
             '"default": "fast", "attention": "cuda_decode_stream_mma+cuda_flash_wgmma"' "$FP8_DENSE")"
PROMPT_ATTENTION="cuda_flash_mma cuda_flash_wgmma"
# Experts of MXFP4 that differ in how a tile is summed, or in how it comes from memory.
FLOAT8_EXPERTS="cuda_grouped_fp8 cuda_grouped_ahead_fp8 cuda_grouped_folded_32_fp8 cuda_grouped_chunks_fp8 cuda_grouped_blocks_fp8 cuda_grouped_short_fp8"
# compute-sanitizer's tools, in the order of what they alone can find here: bounds are checked on every
# shape, the rest on small ones. The first two come before anything is timed, the others at the end.
TOOLS_FIRST=${TOOLS_FIRST-memcheck racecheck}
TOOLS_LAST=${TOOLS_LAST-synccheck initcheck}
LAYERS_20B=${LAYERS_20B:-24}    # of 24: 13.8 GB on disk and on the GPU
LAYERS_120B=${LAYERS_120B:-36}  # of 36: 65 GB

out=moebench-out/gpu-check
budget=
load=
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    --budget) budget=$2; shift 2 ;;
    --load) load=1; shift ;;
    *) echo "error: check the GPU: unknown option '$1' (known: --out, --budget, --load)" >&2; exit 3 ;;
  esac
done
budget=${budget:-$((load ? 780 : 560))}
fail() { echo "error: check the GPU: $*" >&2; exit 2; }
scratch=${MOEBENCH_SCRATCH:-$out}

program=${MOEBENCH_PROGRAM:-build/gpu/bin/moebench}
if [ -z "${MOEBENCH_PROGRAM:-}" ]; then
  [ -f build/gpu/build.ninja ] ||
    cmake --preset release -B build/gpu -DMOEBENCH_CUDA=ON -DMOEBENCH_TESTS=OFF || exit 2
  cmake --build build/gpu --target moebench || exit 2
fi
[ -x "$program" ] || fail "$program is not a program (set MOEBENCH_PROGRAM, or leave it out to build one)"
mkdir -p "$out" || exit 2

started=$SECONDS
left() { echo $((budget - (SECONDS - started))); }
json_text() { tr -d '\000-\010\013\014\016-\037' | tr '\n\t\r' '   ' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g'; }

# record STEP STATUS EXIT_CODE SECONDS DETAIL
record() {
  printf '{"step": "%s", "status": "%s", "exit_code": %s, "seconds": %s, "detail": "%s"}\n' \
    "$1" "$2" "$3" "$4" "$(printf %s "$5" | json_text)" >"$out/$1.json.new"
  mv "$out/$1.json.new" "$out/$1.json"
  printf '%-24s %-8s %4s s  %s\n' "$1" "$2" "$4" "$5"
}

# step NAME LIMIT_S JUDGE COMMAND...: runs the command unless the step is there or time is up. JUDGE is
# a function of the output file that prints a detail and says whether all is well.
step() {
  local name=$1 limit=$2 judge=$3 begin=$SECONDS status=ok code=0 detail
  shift 3
  [ -f "$out/$name.json" ] && return 0
  [ "$(left)" -ge 10 ] || return 0
  [ "$limit" -le "$(left)" ] || limit=$(left)
  timeout -k 5 "$limit" "$@" >"$out/$name.out" 2>"$out/$name.err" || code=$?
  detail=$($judge "$out/$name.out") || status=failed
  [ $code = 0 ] || { status=failed; detail="${detail:+$detail; }$(tail -n 1 "$out/$name.err" | cut -c 1-200)"; }
  [ $code != 124 ] && [ $code != 137 ] || { status=timeout; detail="stopped after $limit s; $detail"; }
  record "$name" "$status" "$code" $((SECONDS - begin)) "$detail"
}
missing() { [ -f "$out/$1.json" ] || record "$1" missing 0 0 "$2"; }

# The text of one finding of `moebench doctor --json`: finding WHAT level|detail.
finding() {
  awk -v what="\"what\": \"$1\"" -v field="\"$2\": " '
    index($0, what) { inside = 1 }
    inside && index($0, field) {
      sub(/^ *"[a-z]*": "/, ""); sub(/",?$/, ""); print; exit
    }' "$out/doctor.out"
}

no_judge() { tail -n 1 "$1" | cut -c 1-200; }
judge_doctor() { finding GPU detail; }
judge_verify() {
  awk '/"outcome": "pass"/ { ++passed } /"outcome": "FAIL"/ { ++failed } /"outcome": "skip"/ { ++skipped }
    END { printf "%d passed, %d failed, %d skipped", passed, failed, skipped; exit failed > 0 || passed == 0 }' "$1"
}
judge_fidelity() {
  awk -v bound="$bound" '/"mean_kl"/ { inside = 1 } inside && /"value"/ { gsub(/[^0-9.e+-]/, "", $2); kl = $2; inside = 0 }
    END {
      if (kl == "") { print "no KL divergence in the output"; exit 1 }
      printf "mean KL %g nats, at most %g", kl, bound; exit !(kl + 0 <= bound + 0)
    }' "$1"
}
judge_bench() {
  awk '/"error_occurred": true/ { ++wrong } /"real_time"/ { ++timed }
    END { printf "%d timed, %d wrong", timed, wrong; exit wrong > 0 || timed == 0 }' "$1"
}
judge_run() {  # uses $run
  awk '/"status":"ok"/ { ++ok } !/"status":"ok"/ { ++other }
    END { printf "%d cases ok, %d not", ok, other; exit other > 0 || ok == 0 }' "$run/results.jsonl" 2>/dev/null
}
judge_sanitizer() { grep -h 'ERROR SUMMARY' "$1" | tail -n 1 | sed 's/^=* *//'; }
# racecheck does not see that a stage of a ring is free once its readers have arrived at its barrier: on
# an H200 it reported a textbook ring of bulk copies of forty lines too (2026-11-27). Those are counted,
# and everything else is a failure.
judge_racecheck() {
  awk '
    function end_report() { if (report != "") { if (report ~ /copy_bulk_async/) ++ring; else ++other }; report = "" }
    /Race reported/ { end_report(); inside = 1 }
    /^=+ *$/ { end_report(); inside = 0 }
    inside { report = report $0 }
    /RACECHECK SUMMARY/ { whole = 1 }
    END {
      end_report()
      printf "%d hazards, and %d of bulk copies into rings, which racecheck does not follow", other, ring
      if (!whole) printf "; it did not end"
      exit other > 0 || !whole
    }' "$1"
}

# ---- Is there a GPU? -----------------------------------------------------------------------------
if [ ! -f "$out/doctor.json" ]; then
  "$program" doctor --json >"$out/doctor.out" 2>"$out/doctor.err"
  [ "$(finding GPU level)" = ok ] || fail "$(finding GPU detail)$(cat "$out/doctor.err")"
fi
step doctor 60 judge_doctor "$program" doctor --json

# ---- Is it right? --------------------------------------------------------------------------------
synth() {  # SHAPE LAYERS LIMIT_S
  if [ -f "$out/suite_$1.json" ] && { [ -z "$load" ] || [ -f "$out/suite_$1_load.json" ]; }; then return 0; fi
  [ -d "$scratch/model-$1" ] || rm -f "$out/synth_$1.json"  # a run without --load was done with it
  step "synth_$1" "$3" no_judge "$program" model synth --shape "$1" --layers "$2" --out "$scratch/model-$1"
}
synth 20b "$LAYERS_20B" 60 &
ops=$("$program" kernels list --backend cuda --json | sed -n 's/.*"op": "\(.*\)",/\1/p' | sort -u)
for op in $ops; do
  step "verify_$op" 90 judge_verify "$program" kernels verify --backend cuda --op "$op" --threads 4 --json &
done
printf '{"tokens": [%s], "first": 1}\n' "$(seq -s, 1 96)" >"$out/traces.jsonl"
for entry in $PLANS; do
  plan=${entry%=*}
  bound=${entry#*=}
  step "golden_$plan" 60 judge_fidelity "$program" fidelity --model tests/golden/gpt-oss-tiny-a \
    --plan "$plan" --traces "$out/traces.jsonl" --json &
  step "nano_$plan" 60 judge_fidelity "$program" fidelity --model nano --plan "$plan" --tokens 1024 --json &
done
if command -v cuobjdump >/dev/null && command -v nvdisasm >/dev/null; then
  step machine_code 90 no_judge scripts/check_sass.sh "$program" &
else
  missing machine_code "cuobjdump or nvdisasm is not installed"
fi
# The same bits whatever the batch and the chunking, with and without graphs.
cat >"$out/suite-invariance.json" <<SUITE
{"name": "invariance", "models": ["nano"],
 "plans": ["cuda_invariant", "cuda_accurate", $INVARIANT_STREAMS, $INVARIANT_BLOCKS,
           $(plan_of "invariant, bf16 cache" '"default": "invariant"' '"kv": "bf16"'),
           $(plan_of "invariant, fused" '"default": "invariant", "linear": "cuda_stream_bf16",
             "moe_experts": "cuda_direct_bf16"' '"kv": "bf16", "fuse": true'),
           $(plan_of "invariant, attention by wgmma" '"default": "invariant", "attention": "cuda_flash_wgmma"' '"kv": "bf16"')],
 "probes": [{"kind": "invariance", "items": 4}]}
SUITE
run=$out/run-invariance step invariance 60 judge_run "$program" run "$out/suite-invariance.json" \
  --out "$out/run-invariance" --resume &
wait

# ---- What the sanitizer says, op by op -------------------------------------------------------------
sanitize() {  # TOOLS
  local tool op shapes judge wrong
  if ! command -v compute-sanitizer >/dev/null; then
    for tool in $1; do missing "$tool" "compute-sanitizer is not installed"; done
    return 0
  fi
  for tool in $1; do
    shapes=--small
    [ "$tool" != memcheck ] || shapes=
    for op in $ops; do
      judge=judge_sanitizer
      wrong=9
      [ "$tool" != racecheck ] || { judge=judge_racecheck; wrong=0; }
      step "${tool}_$op" 60 "$judge" compute-sanitizer --tool "$tool" --error-exitcode "$wrong" \
        "$program" kernels verify --backend cuda --op "$op" --threads 2 $shapes &
    done
    wait
  done
}
sanitize "$TOOLS_FIRST"

# ---- Is it fast? ---------------------------------------------------------------------------------
# First what the machine can do: suites then say how much of that a plan reaches.
step roofline 60 no_judge "$program" roofline --backend cuda
# suite_of NAME SHAPE LIMIT_S MAX_BATCH PLANS WORKLOADS STEP_TOKENS: plans on random weights in that
# shape.
suite_of() {
  local model=$scratch/model-$2 run=$out/run-$1
  cat >"$out/suite-$1.json" <<SUITE
{"name": "$1", "description": "Random weights in the shape of gpt-oss-$2.",
 "models": ["$model"], "plans": [$5], "max_batch": $4, "step_tokens": $7,
 "workloads": [$6]}
SUITE
  [ -f "$out/suite_$1.json" ] && return 0
  grep -q '"status": "ok"' "$out/synth_$2.json" 2>/dev/null || return 0
  step "suite_$1" "$3" judge_run "$program" run "$out/suite-$1.json" --out "$run" --resume
}
STEADY='{"kind": "decode", "batch": [1, 8, 32], "context": 1024, "tokens": 64, "repetitions": 3},
               {"kind": "prefill", "tokens": [2048, 8192], "repetitions": 3}'
load_of() {  # SEQUENCES
  printf '%s,\n               ' '{"kind": "decode", "batch": 128, "context": 1024, "tokens": 64, "repetitions": 1}'
  printf '{"kind": "serve", "concurrency": %s, "requests": %s, "input": 1000, "output": 1000, "prompts": "random"}' \
    "$1" "$1"
}
suites="20b 120b"
# of_shape SHAPE SECONDS PLANS SEQUENCES: all its suites, and its weights are not needed any more.
of_shape() {
  suite_of "$1" "$1" "$2" 32 "$3" "$STEADY" 8192
  [ -z "$load" ] || suite_of "$1_load" "$1" 180 "$4" "$LOAD_PLANS" "$(load_of "$4")" 8192
  if [ -f "$out/suite_$1.json" ] && { [ -z "$load" ] || [ -f "$out/suite_$1_load.json" ]; }; then
    rm -rf "$scratch/model-$1"
  fi
}
of_shape 20b 210 "$SUITE_PLANS_20B" 1536
synth 120b "$LAYERS_120B" 90
of_shape 120b 160 "$SUITE_PLANS" 768
[ -z "$load" ] || suites="20b 20b_load 120b 120b_load"
for op in linear:bf16 moe_experts:mxfp4 attention:bf16; do
  step "bench_${op%:*}" 60 judge_bench "$program" kernels bench --backend cuda --op "${op%:*}" \
    --format "${op#*:}" --json --min-time 0.01 --tokens 1,8,64,512 --context 1024
done
# Where tiles of each size begin, and prompts.
for variant in $FLOAT8_EXPERTS; do
  step "bench_$variant" 60 judge_bench "$program" kernels bench --backend cuda --op moe_experts \
    --variant "$variant" --format mxfp4 --json --min-time 0.01 --tokens 8,16,32,64,128,256,2048,8192
done
# Attention of many sequences, a token each.
step bench_attention_decode 60 judge_bench "$program" kernels bench --backend cuda --op attention \
  --format bf16 --json --min-time 0.01 --tokens 64,128 --context 1024 --decode
# Attention of prompts, of their last tokens, and of one token.
for variant in $PROMPT_ATTENTION; do
  step "bench_$variant" 60 judge_bench "$program" kernels bench --backend cuda --op attention \
    --variant "$variant" --format bf16 --format fp8_e4m3 --json --min-time 0.02 --tokens 1,512,2048,8192 \
    --context 2048,8192
done

sanitize "$TOOLS_LAST"

# ---- Summary ---------------------------------------------------------------------------------------
expected="doctor $(for op in $ops; do echo "verify_$op"; done)
  $(for entry in $PLANS; do echo "golden_${entry%=*} nano_${entry%=*}"; done) invariance machine_code
  roofline $(for suite in $suites; do echo "suite_$suite"; done) bench_linear bench_moe_experts bench_attention
  bench_attention_decode $(for variant in $PROMPT_ATTENTION $FLOAT8_EXPERTS; do echo "bench_$variant"; done)
  $(for tool in $TOOLS_FIRST $TOOLS_LAST; do for op in $ops; do [ -f "$out/$tool.json" ] || echo "${tool}_$op"; done; done)"
unfinished=()
for name in $expected; do [ -f "$out/$name.json" ] || unfinished+=("$name"); done
bad=$(grep -l '"status": "\(failed\|timeout\)"' "$out"/*.json 2>/dev/null | grep -cv '/\(gpu_check\|report\).json$')
{
  printf '{"schema": "moebench.gpu_check/1",\n "version": "%s",\n "gpu": "%s",\n "left": [%s],\n "steps": [\n' \
    "$("$program" --version | json_text)" "$(finding GPU detail)" \
    "$(for name in "${unfinished[@]}"; do printf '"%s"\n' "$name"; done | paste -s -d , -)"
  separator=
  ls -tr "$out"/*.json | while read -r file; do
    case $file in */gpu_check.json | */report.json | */suite-*) continue ;; esac
    printf '%s  %s' "$separator" "$(cat "$file")"
    separator=$',\n'
  done
  printf '\n]}\n'
} >"$out/gpu_check.json.new"
mv "$out/gpu_check.json.new" "$out/gpu_check.json"

runs=()
for suite in $suites; do [ ! -d "$out/run-$suite" ] || runs+=("$out/run-$suite"); done
"$program" report "${runs[@]}" --out "$out/report.html" \
  --json "$out/report.json" >/dev/null 2>"$out/report.err" ||
  echo "no report: $(tail -n 1 "$out/report.err")"
echo
printf '%-24s %-8s %6s  %s\n' step status time detail
sed -n 's/^ *{"step": "\([^"]*\)", "status": "\([^"]*\)", "exit_code": [0-9]*, "seconds": \([0-9]*\), "detail": "\(.*\)"}.*/\1\t\2\t\3\t\4/p' \
  "$out/gpu_check.json" | while IFS=$'\t' read -r name status seconds detail; do
    printf '%-24s %-8s %4s s  %s\n' "$name" "$status" "$seconds" "$detail"
  done
echo "$out/gpu_check.json: $bad failed, ${#unfinished[@]} left${unfinished:+ (run again with --out $out): ${unfinished[*]}}"
[ "$bad" = 0 ] || exit 2
[ ${#unfinished[@]} = 0 ] || exit 4
