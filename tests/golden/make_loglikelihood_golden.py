"""Writes loglikelihood.json: log-probabilities of continuations under nano, by transformers' GptOssForCausalLM in float32.

Tokens as lm-evaluation-harness takes them: context and continuation are encoded together, and the continuation's are those
after as many as the context alone has; spaces at the end of the context go to the continuation. Needs torch, transformers,
tokenizers (datasets/nano/train/requirements.txt).   python3 tests/golden/make_loglikelihood_golden.py
"""
import json
import pathlib
import sys

import torch
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).resolve().parent
NANO = HERE.parent.parent / "datasets" / "nano"
sys.path.insert(0, str(NANO / "train"))
import make_goldens  # noqa: E402

PAIRS = [
    ("Question: What is 33 + 29?\nAnswer:", " 62"),
    ("Question: What is 33 + 29?\nAnswer:", " 61"),
    ("Question: What is 33 + 29?\nAnswer: ", "62"),
    ("Today is Sunday. Which day of the week was it 97 days ago?\nAnswer:", " Monday"),
    ("Today is Sunday. Which day of the week was it 97 days ago?\nAnswer:", " Saturday, I think"),
    ("Leo has 33 stamps and gives away 29.", " 4 stamps are left."),
    ("Leo has 33 stamps and gives away 29.", " Été: ½ of them 😀"),
    ("a", "b"),
    ("The largest of 39, 33, 19, 98, 96, 49 is" * 12, " 98"),
]


@torch.no_grad()
def score(model, tokenizer, context, continuation):
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    ids = tokenizer.encode(context + continuation).ids
    start = len(tokenizer.encode(context).ids)
    logits = model(torch.tensor([ids[:-1]])).logits[0].double().log_softmax(-1)
    return {"log_probability": sum(logits[i - 1, ids[i]].item() for i in range(start, len(ids))), "tokens": len(ids) - start}


def main():
    model = make_goldens.reference_model(NANO / "model")
    tokenizer = Tokenizer.from_file(str(NANO / "model" / "tokenizer.json"))
    cases = [{"context": c, "continuation": t, **score(model, tokenizer, c, t)} for c, t in PAIRS]
    questions = [json.loads(line) for line in (NANO / "questions.jsonl").read_text().splitlines()[:24]]
    items = []
    for q in questions:
        scores = [score(model, tokenizer, f"Question: {q['question']}\nAnswer:", " " + c) for c in q["choices"]]
        best = {name: "ABCD"[max(range(4), key=lambda i: scores[i]["log_probability"] / length(q["choices"][i], scores[i]))]
                for name, length in (("none", lambda c, s: 1), ("tokens", lambda c, s: s["tokens"]),
                                     ("bytes", lambda c, s: len(c.encode())), ("characters", lambda c, s: len(c)))}
        items.append({"id": q["id"], "scores": scores, "best": best})
    about = "datasets/nano/model, float32: made by tests/golden/make_loglikelihood_golden.py"
    text = json.dumps({"about": about, "pairs": cases, "items": items}, ensure_ascii=False, indent=0)
    (HERE / "loglikelihood.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
