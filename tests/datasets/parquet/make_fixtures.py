#!/usr/bin/env python3
"""Makes the Parquet files beside it with pyarrow, an implementation that is not ours, and rows.jsonl,
what is in them: pip install pyarrow; ./make_fixtures.py

The texts are made up. One table, written in many ways: codecs, page versions, encodings, page and
row group sizes; then a file for each thing that the reader refuses.
"""

import datetime
import decimal
import json
import math
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
NUM_ROWS = 45


def row(i):
    options = [f"option {i % 7}", "ß", "", f"{i}"][: i % 5]
    return {
        "question_id": 10**12 + i * 37,
        "question": f"What is {i} and {i * i}?\n" + "Grün 🙂 " * (i % 3),
        "options": None if i % 11 == 3 else [None if i % 6 == 5 and k == 1 else o for k, o in enumerate(options)],
        "answer": "ABCD"[i % 4],
        "answer_index": -i if i % 2 else i,
        "category": None if i % 10 == 9 else ["law", "physics", "law and order"][i // 15],
        "choices": None if i % 13 == 12 else {"text": [f"t{i}", "x"][: i % 3], "label": ["A", "B"][: i % 3]},
        "turns": [{"role": "user", "words": ["a"] * (k % 3), "tokens": None if k == 1 else k} for k in range(i % 4)],
        "grid": [[i, None], [], [i + 1]][: i % 4],
        "weight": None if i % 9 == 4 else (math.nan if i == 20 else i / 7),
        "score": i / 8,
        "public": None if i % 8 == 7 else i % 3 == 0,
        "sure": i % 2 == 0,
        "small": i % 256,
        "big": 2**64 - 1 - i,
        "middle": 2**32 - 1 - i,
        "nothing": None,
    }


TURN = pa.struct([("role", pa.string()), ("words", pa.list_(pa.string())), ("tokens", pa.int32())])
SCHEMA = pa.schema([
    pa.field("question_id", pa.int64(), nullable=False),
    ("question", pa.string()),
    ("options", pa.list_(pa.string())),
    pa.field("answer", pa.string(), nullable=False),
    ("answer_index", pa.int32()),
    ("category", pa.string()),
    ("choices", pa.struct([("text", pa.list_(pa.string())), ("label", pa.list_(pa.string()))])),
    ("turns", pa.list_(TURN)),
    ("grid", pa.list_(pa.list_(pa.int64()))),
    ("weight", pa.float64()),
    ("score", pa.float32()),
    ("public", pa.bool_()),
    pa.field("sure", pa.bool_(), nullable=False),
    ("small", pa.uint8()),
    ("big", pa.uint64()),
    ("middle", pa.uint32()),
    ("nothing", pa.null()),
])


def write(name, table, **options):
    settings = dict(write_statistics=False, store_schema=False, compression="none", use_dictionary=False)
    pq.write_table(table, HERE / name, **{**settings, **options})


def main():
    rows = [row(i) for i in range(NUM_ROWS)]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    lines = []
    for r in table.to_pylist():
        if r["weight"] is not None and math.isnan(r["weight"]):
            r["weight"] = None
        lines.append(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n")
    (HERE / "rows.jsonl").write_text("".join(lines))

    leaves = ["question_id", "question", "answer", "answer_index", "category", "small", "big", "middle",
              "options.list.element", "choices.text.list.element", "turns.list.element.tokens",
              "grid.list.element.list.element"]
    texts = {"question", "category", "options.list.element", "choices.text.list.element", "answer"}
    small_pages = dict(data_page_size=64, write_batch_size=5)
    write("plain_v1.parquet", table)
    write("snappy_dictionary_v1.parquet", table, compression="snappy", use_dictionary=True, row_group_size=40)
    write("gzip_dictionary_v2.parquet", table, compression="gzip", use_dictionary=True, data_page_version="2.0",
          dictionary_pagesize_limit=200, **small_pages)  # turns to PLAIN in the middle
    write("snappy_plain_v2.parquet", table, compression="snappy", data_page_version="2.0",
          column_encoding={"sure": "RLE", "public": "RLE"})
    write("zstd_deltas_v1.parquet", table, compression="zstd", write_page_checksum=True,
          column_encoding={leaf: "DELTA_BYTE_ARRAY" if leaf in texts else "DELTA_BINARY_PACKED" for leaf in leaves})
    write("lengths_v2.parquet", table, data_page_version="2.0", use_compliant_nested_type=False, row_group_size=30,
          column_encoding={"question": "DELTA_LENGTH_BYTE_ARRAY", "options.list.item": "DELTA_LENGTH_BYTE_ARRAY",
                           **{name: "BYTE_STREAM_SPLIT" for name in ("weight", "score", "question_id", "middle")}})
    write("statistics.parquet", table.select(["question", "options", "weight"]), compression="zstd",
          use_dictionary=True, write_statistics=True, store_schema=True, write_page_index=True,
          write_page_checksum=True)
    # Long enough for several blocks of deltas and runs of all kinds.
    many = [{"n": (i * i * 7919) % 1000003 - 500000, "same": "x", "step": i // 300} for i in range(2000)]
    write("many.parquet", pa.Table.from_pylist(many), compression="zstd", use_dictionary=["same", "step"],
          column_encoding={"n": "DELTA_BINARY_PACKED"})
    (HERE / "many.json").write_text(json.dumps({
        "rows": len(many), "sum_n": sum(r["n"] for r in many), "sum_product": sum(i * r["n"] for i, r in enumerate(many)),
        "sum_step": sum(r["step"] for r in many)}) + "\n")

    day = datetime.date(2024, 2, 29)
    refused = {
        "date": (pa.array([day]), {}),
        "timestamp": (pa.array([datetime.datetime(2024, 2, 29)]), {}),
        "decimal": (pa.array([decimal.Decimal("1.25")]), {}),
        "fixed": (pa.array([b"abc"], pa.binary(3)), {}),
        "int96": (pa.array([datetime.datetime(2024, 2, 29)]), {"use_deprecated_int96_timestamps": True}),
        "map": (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32())), {}),
        "half": (pa.array([1.5], pa.float16()), {}),
        "bytes": (pa.array([b"\xff\xfe"]), {}),
        "brotli": (pa.array(["a" * 50]), {"compression": "brotli"}),
        "lz4": (pa.array(["a" * 50]), {"compression": "lz4"}),
    }
    for name, (values, options) in refused.items():
        write(f"refused_{name}.parquet", pa.table({"strange": values}), **options)

    # In the form of MMLU-Pro.
    def question(number, text, options, answer, category, worked):
        return {"question_id": number, "question": text, "options": options, "answer": answer,
                "answer_index": ord(answer) - ord("A"), "cot_content": worked, "category": category, "src": "ours"}

    write("mmlu_pro_test.parquet", pa.Table.from_pylist([question(7, "Q?", ["a", "b", "c"], "B", "law", "")]),
          compression="snappy", use_dictionary=True)
    write("mmlu_pro_validation.parquet", pa.Table.from_pylist([
        question(0, "V?", ["p", "q"], "A", "law", "A: Let's think step by step. p. The answer is (A)."),
        question(1, "W?", ["p", "q"], "A", "math", "A: no")]), compression="snappy", use_dictionary=True)


main()
