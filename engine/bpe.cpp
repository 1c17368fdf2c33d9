// The heap of candidates and the linked list of tokens.
#include "engine/bpe.h"

#include <cassert>

namespace moebench {
namespace {

std::uint64_t pair_key(TokenId left, TokenId right) {
  return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) |
         static_cast<std::uint32_t>(right);
}

}  // namespace

void BpeMerges::add(TokenId left, TokenId right, Merge merge) {
  merges_.insert_or_assign(pair_key(left, right), merge);
}

const BpeMerges::Merge* BpeMerges::find(TokenId left, TokenId right) const {
  const auto it = merges_.find(pair_key(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void BpeMerger::consider(Position left) {
  const Position right = nodes_[left].next;
  if (right == kNone) return;
  const BpeMerges::Merge* merge = merges_.find(nodes_[left].id, nodes_[right].id);
  if (merge == nullptr) return;
  candidates_.push({merge->rank, left, nodes_[left].id, nodes_[right].id, merge->merged});
}

void BpeMerger::merge(std::span<const TokenId> piece, std::vector<TokenId>& out) {
  assert(piece.size() < kNone);
  if (piece.empty()) return;
  nodes_.clear();
  const auto length = static_cast<Position>(piece.size());
  for (Position i = 0; i < length; ++i) {
    nodes_.push_back({piece[i], i == 0 ? kNone : i - 1, i + 1 == length ? kNone : i + 1});
  }
  for (Position i = 0; i < length; ++i) consider(i);

  while (!candidates_.empty()) {
    const Candidate candidate = candidates_.top();
    candidates_.pop();
    Node& left = nodes_[candidate.position];
    if (left.id != candidate.left || left.next == kNone) continue;
    Node& right = nodes_[left.next];
    if (right.id != candidate.right) continue;

    left.id = candidate.merged;
    left.next = right.next;
    right.id = kGone;
    if (left.next != kNone) nodes_[left.next].previous = candidate.position;
    consider(candidate.position);
    if (left.previous != kNone) consider(left.previous);
  }

  // The first token is never merged away: merges go to the left.
  for (Position i = 0; i != kNone; i = nodes_[i].next) out.push_back(nodes_[i].id);
}

}  // namespace moebench
