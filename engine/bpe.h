// Byte-pair merging: neighbouring tokens are joined, always the pair of the lowest rank first and
// the leftmost of equals, until no neighbours can be joined.
//
// Scanning the piece once per merge is quadratic, and a run of 10^6 spaces is legal input; so the
// candidates wait in a heap and the tokens form a linked list: O(n log n) for a piece of n bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <queue>
#include <span>
#include <unordered_map>
#include <vector>

namespace moebench {

using TokenId = std::int32_t;

// Which pairs of tokens join, in which order, and to what.
class BpeMerges {
 public:
  struct Merge {
    std::uint32_t rank;  // lower first
    TokenId merged;
  };

  // A pair added twice keeps the later merge, as Hugging Face's loader does.
  void add(TokenId left, TokenId right, Merge merge);

  // nullptr if the two do not join.
  const Merge* find(TokenId left, TokenId right) const;

  std::size_t size() const { return merges_.size(); }

 private:
  // Finaliser of MurmurHash3: the standard library's hash of an integer is the integer itself,
  // whose low bits are the right token alone.
  struct Mix {
    std::size_t operator()(std::uint64_t key) const {
      key = (key ^ (key >> 33)) * 0xff51afd7ed558ccdULL;
      key = (key ^ (key >> 33)) * 0xc4ceb9fe1a85ec53ULL;
      return key ^ (key >> 33);
    }
  };

  std::unordered_map<std::uint64_t, Merge, Mix> merges_;
};

// Merges one piece after another, keeping its buffers. Not for use by two threads at once.
class BpeMerger {
 public:
  // `merges` must outlive the merger.
  explicit BpeMerger(const BpeMerges& merges) : merges_(merges) {}

  // Appends the merged form of `piece` to `out`. A piece has fewer than 2^32 - 1 tokens.
  void merge(std::span<const TokenId> piece, std::vector<TokenId>& out);

 private:
  using Position = std::uint32_t;
  static constexpr Position kNone = ~Position{0};
  static constexpr TokenId kGone = -1;

  // A token of the piece; `id` is kGone once it was merged into the token on its left.
  struct Node {
    TokenId id;
    Position previous, next;
  };

  // A merge that was possible when it was found; it is stale if the tokens have changed since.
  struct Candidate {
    std::uint32_t rank;
    Position position;
    TokenId left, right, merged;

    // std::priority_queue yields its largest element: the lowest rank, then the leftmost.
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };

  void consider(Position left);

  const BpeMerges& merges_;
  std::vector<Node> nodes_;
  std::priority_queue<Candidate> candidates_;
};

}  // namespace moebench
