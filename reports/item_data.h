// The items of a report as the page carries them: an index that is read at once, and the
// transcripts in pieces that page_items.js unpacks when somebody looks.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "reports/html_page.h"

namespace moebench::page {

// `index` is what the list needs, `chunks` the answers: the page has them at its end, so that the
// list need not wait for them.
//
//   index: {"plans", "efforts", "tasks", "categories", "verdicts": names that numbers below refer
//   to,
//    "reference_of": for each plan the number of the reference of its model, or -1, "count",
//    "without_text", "left_out", "chunk_items": items in a chunk, "index": packed [[task, id,
//    category, flips, question's beginning, verdicts]...]}
//   each chunk: packed [[expected, question, choices, texts, answers]...]
//
// In the index, verdicts are one text: for each answer a letter, 'a' + verdict, capital where the
// verdict differs from the reference's, with a space between efforts and repeats. A text is
// [analysis, final]; an answer is [plan, effort, repeat, verdict, flipped, text, tokens,
// milliseconds, answer, hash of a hidden text], and then, if it is known where it leaves the
// reference, [token, 0 for analysis or 1 for final, where in that text, length], in the units in
// which JavaScript counts text.
struct PackedItems {
  OrderedJson index;
  std::vector<std::string> chunks;  // base64: safe in a script as they are
};

// All items of the report, in its order, in at most about `most_bytes` of text. Where that is too
// little, the last items keep their verdicts and lose their transcripts ("without_text" counts
// them); then they are left out ("left_out").
PackedItems pack_items(const Report& report, std::size_t most_bytes);

// The chunks as elements of the page that page_items.js knows.
std::string item_chunks(const PackedItems& items);

}  // namespace moebench::page
