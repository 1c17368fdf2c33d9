"""Writes lm_eval/: what EleutherAI's lm-evaluation-harness says about nano, through its Hugging Face backend in float32.

Two tasks, in lm-eval's own schema and with its own prompts: `arc_easy` on 40 of nano's questions (put into the columns of that
dataset), by log-likelihood; and a `loglikelihood_rolling` task on a text of ours, as its wikitext is. The results and samples files
are lm-eval's, less what names the machine and what is not read. `arc_easy.jsonl` holds the same questions in the columns of the
original ARC files, which is what moebench reads; `perplexity.json` adds strided windows, by torch alone.

Needs lm_eval[hf], torch, transformers (datasets/nano/train/requirements.txt).   python3 tests/golden/make_lm_eval_golden.py
"""
import json
import math
import pathlib
import sys
import tempfile

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
NANO = HERE.parent.parent / "datasets" / "nano"
OUT = HERE / "lm_eval"
sys.path.insert(0, str(NANO / "train"))
import make_goldens  # noqa: E402

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.loggers import EvaluationTracker  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

NUM_QUESTIONS = 40
NUM_LINES = 100
# As lm_eval/tasks/arc/arc_easy.yaml, but for where the rows come from, and with acc_bytes.
ARC = """
task: nano_arc
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{choices.label.index(answerKey)}}}}"
doc_to_choice: "{{{{choices.text}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_bytes, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
ROLLING = """
task: nano_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{page}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: byte_perplexity}}, {{metric: bits_per_byte}}]
metadata: {{version: 1.0}}
"""
MACHINE = ("pretty_env_info", "git_hash", "upper_git_hash", "start_time", "end_time", "total_evaluation_time_seconds", "date",
           "configs", "transformers_version")


@torch.no_grad()
def strided(model, ids, window, stride):
    """Sum of negative log-probabilities of ids[1:], in nats, by windows that start `stride` apart, the last one where it is full."""
    total, scored, begin = 0.0, 1, 0
    while scored < len(ids):
        begin = max(0, min(begin, len(ids) - window))
        end = min(begin + window, len(ids))
        logits = model(torch.tensor([ids[begin:end - 1]])).logits[0].double().log_softmax(-1)
        total -= sum(logits[i - begin - 1, ids[i]].item() for i in range(scored, end))
        scored, begin = end, begin + stride
    return total


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def main():
    OUT.mkdir(exist_ok=True)
    model = make_goldens.reference_model(NANO / "model")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(NANO / "model")
    every = [json.loads(line) for line in (NANO / "questions.jsonl").read_text().splitlines()]
    # Choices of different lengths, so that dividing by them can change the answer.
    questions = [q for q in every if len({len(c) for c in q["choices"]}) > 2][:NUM_QUESTIONS]
    text = "\n".join(q["question"] for q in every[:NUM_LINES]) + "\n"
    theirs, ours = [], []
    for q in questions:
        theirs.append({"id": q["id"], "question": q["question"], "choices": {"text": q["choices"], "label": list("ABCD")},
                       "answerKey": q["answer"]})
        choices = [{"text": t, "label": label} for t, label in zip(q["choices"], "ABCD")]
        ours.append({"id": q["id"], "question": {"stem": q["question"], "choices": choices}, "answerKey": q["answer"]})
    (OUT / "arc_easy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ours))

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "arc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in theirs))
        (folder / "text.jsonl").write_text(json.dumps({"page": text}) + "\n")
        (folder / "nano_arc.yaml").write_text(ARC.format(data=folder / "arc.jsonl"))
        (folder / "nano_text.yaml").write_text(ROLLING.format(data=folder / "text.jsonl"))
        tracker = EvaluationTracker(output_path=str(folder / "out"))
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        lm = HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=1)
        results = simple_evaluate(model=lm, tasks=["nano_arc", "nano_text"], task_manager=manager, evaluation_tracker=tracker)
        samples = results.pop("samples")
        tracker.general_config_tracker.model_name_sanitized = "nano"
        tracker.save_results_aggregated(results=results, samples=samples)
        tracker.save_results_samples(task_name="nano_arc", samples=samples["nano_arc"])
        written = json.loads(next((folder / "out").rglob("results_*.json")).read_text())
        lines = next((folder / "out").rglob("samples_*.jsonl")).read_text().splitlines()
    for name in MACHINE:
        written.pop(name, None)
    written["config"]["device"] = "cpu"
    written["model_name"] = "nano"
    write_json(OUT / "results_2026-01-31T12-00-00.000000.json", written)
    (OUT / "samples_nano_arc_2026-01-31T12-00-00.000000.jsonl").write_text("".join(line + "\n" for line in lines))

    ids = [tokenizer.bos_token_id or tokenizer.eos_token_id] + tokenizer(text, add_special_tokens=False).input_ids
    cases = []
    for window, stride in ((513, 512), (513, 256), (128, 64), (100, 33)):
        nll = strided(model, ids, window, stride)
        cases.append({"window": window, "stride": stride, "nll": nll, "perplexity": math.exp(nll / (len(ids) - 1)),
                      "bits_per_byte": nll / math.log(2) / len(text.encode())})
    write_json(OUT / "perplexity.json", {"about": "nano's questions by nano, float32: made by make_lm_eval_golden.py",
                                         "text": text, "tokens": len(ids) - 1, "prefix": ids[0], "cases": cases})


if __name__ == "__main__":
    main()
