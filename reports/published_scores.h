// Scores that others published for gpt-oss, as points to compare an own score with.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace moebench {

struct PublishedScore {
  std::string_view benchmark;  // as published: "GPQA Diamond, no tools"
  std::string_view task;       // ours that asks the same; "" if none does
  std::string_view model;      // "gpt-oss-20b"
  double low = 0;              // by reasoning effort; shares, or points of an Elo rating
  double medium = 0;
  double high = 0;
  bool is_share = true;

  // Of "low", "medium" or "high"; NaN for another effort.
  double of_effort(std::string_view effort) const;
};

// "gpt-oss-20b & 120b model card, arXiv 2508.10925, Table 3" and what to know about the numbers.
inline constexpr std::string_view kPublishedSource =
    "model card gpt-oss-120b & gpt-oss-20b, arXiv 2508.10925, Table 3";
inline constexpr std::string_view kPublishedUrl = "https://arxiv.org/abs/2508.10925";
inline constexpr std::string_view kPublishedNote =
    "From runs with the MXFP4 weights, at temperature 1; prompts and harness are not stated. Taken "
    "from two independent transcriptions of the table that agree.";

std::span<const PublishedScore> published_scores();

// The published model with about so many parameters ("gpt-oss-20b"), or "": names of folders say
// little.
std::string_view published_model(double parameters);

// Nullptr if nothing is published for that task and model.
const PublishedScore* published_score(std::string_view task, std::string_view model);

}  // namespace moebench
