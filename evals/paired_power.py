"""How many questions a loss of accuracy takes to be seen, paired and unpaired: the table of evals/README.md.

Reads the ledgers of a run with two plans or more. For each plan against the first, at each effort: accuracies, answers gained
and lost, p-values of the exact McNemar test (paired) and of the two-sample z test (unpaired) on all questions, the number of
questions that 80 % power takes by either test's formula, and, as a check on the formulas, the share of random subsets of that
size on which each test says p < 0.05. Standard library only.

    moebench eval --model nano --task nano --effort low --effort high --plan fast --plan int4 --out RUN
    python3 evals/paired_power.py RUN
"""
import json
import math
import pathlib
import random
import sys

Z_LEVEL, Z_POWER = 1.959964, 0.841621  # 95 %, 80 %
DRAWS = 200
MOST = 4000  # questions of a subset


def mcnemar(gained, lost):
    n, k = gained + lost, min(gained, lost)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2 ** n
    return min(1.0, 2 * tail)


def two_sample(right_a, n_a, right_b, n_b):
    pooled = (right_a + right_b) / (n_a + n_b)
    se = math.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    return 1.0 if se == 0 else math.erfc(abs(right_a / n_a - right_b / n_b) / se / math.sqrt(2))


def answers_of(run, case_id):
    path = run / "ledger" / f"{case_id}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {(line["item"], line["repeat"]): line["verdict"] == "correct" for line in lines}


def power(pairs, size, rng):
    """Share of draws of `size` questions, with replacement, on which each test rejects; unpaired draws differ for the plans."""
    paired = unpaired = 0
    for _ in range(DRAWS):
        sample = rng.choices(pairs, k=size)
        paired += mcnemar(sum(b > a for a, b in sample), sum(a > b for a, b in sample)) < 0.05
        other = rng.choices(pairs, k=size)
        unpaired += two_sample(sum(a for a, _ in sample), size, sum(b for _, b in other), size) < 0.05
    return paired / DRAWS, unpaired / DRAWS


def main():
    run, rng = pathlib.Path(sys.argv[1]), random.Random(0)
    records = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    tasks = [r for r in records if r["kind"] == "task" and r["status"] == "ok"]
    base_plan = tasks[0]["plan"]
    print("| plan | effort | base, % | plan, % | gained / lost | p paired | p unpaired | questions paired | unpaired | "
          "power at the paired number: paired | unpaired |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for record in tasks:
        if record["plan"] == base_plan:
            continue
        base = next(r for r in tasks if r["plan"] == base_plan and r["scenario"] == record["scenario"])
        a, b = answers_of(run, base["case_id"]), answers_of(run, record["case_id"])
        pairs = [(a[key], b[key]) for key in sorted(a.keys() & b.keys())]
        n = len(pairs)
        right_a, right_b = sum(x for x, _ in pairs), sum(y for _, y in pairs)
        gained, lost = sum(y > x for x, y in pairs), sum(x > y for x, y in pairs)
        d, pa, pb = (right_b - right_a) / n, right_a / n, right_b / n
        row = [record["plan"], record["scenario"]["effort"], f"{100 * pa:.1f}", f"{100 * pb:.1f}", f"{gained} / {lost}",
               f"{mcnemar(gained, lost):.2g}", f"{two_sample(right_a, n, right_b, n):.2g}"]
        if d == 0:
            row += ["-"] * 4
        else:
            need = (Z_LEVEL + Z_POWER) ** 2 / d ** 2
            paired_need = math.ceil(need * ((gained + lost) / n - d * d))
            unpaired_need = math.ceil(need * (pa * (1 - pa) + pb * (1 - pb)))
            seen = power(pairs, paired_need, rng) if paired_need <= MOST else None
            row += [f"{paired_need:,}", f"{unpaired_need:,}"]
            row += [f"{100 * share:.0f} %" for share in seen] if seen else ["-", "-"]
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
