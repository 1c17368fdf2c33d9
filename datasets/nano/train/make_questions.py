"""Writes questions.jsonl: held-out problems only, balanced over categories, no key twice."""
import argparse
import json
import pathlib

import problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parents[1] / "questions.jsonl")
    parser.add_argument("--per-category", type=int, default=150)
    parser.add_argument("--seed", type=int, default=20250805)
    args = parser.parse_args()
    with open(args.out, "w") as file:
        for number, p in enumerate(problems.question_set(args.seed, args.per_category), start=1):
            assert problems.is_held_out(p.key) and len(set(p.choices)) == 4
            item = {"id": f"nano-{number:04d}", "category": p.category, "key": p.key, "question": p.question,
                    "choices": p.choices, "answer": p.letter}
            file.write(json.dumps(item) + "\n")


if __name__ == "__main__":
    main()
