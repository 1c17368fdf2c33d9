#!/usr/bin/env bash
# Starts a real Slurm of one machine from Debian's packages, runs an evaluation of the model that ships
# as a job array of docs/templates/slurm-array.sh, merges its parts, and compares them with one run.
# Daemons, keys and logs live in a temporary folder and end with the script; no system service is
# touched. Runs as whoever calls it; installing the packages needs root or sudo.
#
#   scripts/try_slurm.sh [BUILD_DIR]      (default: build/release)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/packages.sh
program=$(realpath "${1:-build/release}/bin/moebench")
ensure_packages slurmctld slurmd slurm-client munge

dir=$(mktemp -d "${TMPDIR:-/tmp}/moebench-slurm-XXXXXX")
daemons=()
finish() {
  for daemon in "${daemons[@]}"; do kill "$daemon" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
fail() {
  echo "error: try Slurm: $*" >&2
  tail -n 20 "$dir"/*.log >&2 || true
  exit 2
}
wait_for() {  # SECONDS COMMAND...
  local left=$1
  shift
  until "$@" >/dev/null 2>&1; do
    [ $((left -= 1)) -gt 0 ] || return 1
    sleep 1
  done
}

# Munge wants every folder above its socket to be closed to others' writing, which /tmp is not.
head -c 128 /dev/urandom >"$dir/munge.key"
chmod 400 "$dir/munge.key"
munged --foreground --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
  --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munged.seed" \
  >"$dir/munged.out.log" 2>&1 &
daemons+=($!)

cpus=$(nproc)
port=$((20000 + RANDOM % 20000))
cat >"$dir/slurm.conf" <<CONF
ClusterName=moebench
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
mkdir -p "$dir/state" "$dir/spool"
export SLURM_CONF=$dir/slurm.conf
wait_for 20 test -S "$dir/munge.socket" || fail "munged did not start"
slurmctld -D >"$dir/slurmctld.log" 2>&1 &
daemons+=($!)
slurmd -D >"$dir/slurmd.log" 2>&1 &
daemons+=($!)
wait_for 60 bash -c 'sinfo -h -o %T | grep -qx -e idle -e mixed' || fail "no node became idle"
echo "Slurm $(sinfo --version | cut -d' ' -f2): $(sinfo -h -o '%N %T, %c CPUs')"

arguments=(eval --model nano --task nano --effort low --limit 40 --plan fast --batch 8 -t 1)
parts=$dir/parts
job=$(MOEBENCH_PROGRAM=$program MOEBENCH_OUT=$parts sbatch --parsable --array=1-3 --cpus-per-task=1 \
  --output="$dir/job-%a.log" docs/templates/slurm-array.sh "${arguments[@]}")
echo "job array $job: 3 parts"
wait_for 300 bash -c "[ -z \"\$(squeue -h -j $job)\" ]" || fail "the array did not end"
"$program" merge "$parts" -o "$dir/merged" | tail -n 4 || fail "the parts could not be merged"
"$program" "${arguments[@]}" --out "$dir/whole" >"$dir/whole.log" 2>&1 || fail "the whole run failed"

# Answers without what depends on when and beside what they were given.
answers() {
  cat "$1"/ledger/*.jsonl | sed -E 's/"timing":\{[^}]*\}//; s/"cached_tokens":[0-9]+//' | sort
}
cmp <(answers "$dir/merged") <(answers "$dir/whole") || fail "the answers differ"
"$program" compare "$dir/whole" "$dir/merged" >"$dir/compare.log" || true
grep -E 'accuracy' "$dir/compare.log"
grep -qE 'accuracy .* SAME' "$dir/compare.log" || fail "the accuracies differ"
echo "the merged parts are the whole run: $(answers "$dir/merged" | wc -l) answers"
