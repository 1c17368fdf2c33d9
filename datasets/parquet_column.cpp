// Page after page: levels, then values by their encoding.
#include "datasets/parquet_column.h"

#include <zlib.h>

#include <bit>
#include <cmath>

#include "datasets/parquet_pages.h"
#include "kernels/core/error.h"

namespace moebench::parquet {
namespace {

// What stands in the pages of one chunk, one page at a time.
class ChunkReader {
 public:
  ChunkReader(const ColumnChunk& chunk, const Leaf& leaf, Budget& budget)
      : chunk_(chunk), leaf_(leaf), budget_(budget) {}

  Column read() {
    std::string_view pages = chunk_.pages;
    while (num_entries() < chunk_.num_values) {
      require_or(ErrorCode::kParse, !pages.empty(), "read {}: its pages hold {} values of {}",
                 leaf_.where, num_entries(), chunk_.num_values);
      const PageHeader page = read_page_header(pages, leaf_.where);
      pages.remove_prefix(page.header_bytes);
      read_page(page, take(pages, page.stored_bytes, leaf_.where));
    }
    require_or(ErrorCode::kParse, num_entries() == chunk_.num_values,
               "read {}: its pages hold {} values, not {}", leaf_.where, num_entries(),
               chunk_.num_values);
    return std::move(column_);
  }

 private:
  std::int64_t num_entries() const { return static_cast<std::int64_t>(column_.definitions.size()); }

  void read_page(const PageHeader& page, std::string_view stored) {
    budget_.take_page(static_cast<std::int64_t>(page.unpacked_bytes));
    if (page.crc) {
      const auto crc =
          crc32(0, reinterpret_cast<const Bytef*>(stored.data()), static_cast<uInt>(stored.size()));
      require_or(ErrorCode::kParse, crc == *page.crc,
                 "read {}: the checksum of a page is {:08x}, its header has {:08x}", leaf_.where,
                 crc, *page.crc);
    }
    switch (page.type) {
      case PageType::kIndex:
        return;
      case PageType::kDictionary:
        read_dictionary(page, stored);
        return;
      case PageType::kData:
        read_data(page, unpack(stored, chunk_.codec, page.unpacked_bytes, leaf_.where));
        return;
      case PageType::kDataV2:
        read_data_v2(page, stored);
        return;
    }
  }

  void read_dictionary(const PageHeader& page, std::string_view stored) {
    const bool is_plain =
        page.encoding == Encoding::kPlain || page.encoding == Encoding::kPlainDictionary;
    require_or(ErrorCode::kUnsupported, is_plain, "read {}: a dictionary in {}", leaf_.where,
               encoding_name(page.encoding));
    require_or(ErrorCode::kParse, !has_dictionary_, "read {}: it has two dictionaries",
               leaf_.where);
    budget_.take_values(static_cast<std::int64_t>(page.num_values));
    dictionary_ =
        plain(unpack(stored, chunk_.codec, page.unpacked_bytes, leaf_.where), page.num_values);
    has_dictionary_ = true;
  }

  void read_data(const PageHeader& page, const std::string& unpacked) {
    start_entries(page);
    std::string_view rest = unpacked;
    const auto levels = [&](int most, Encoding encoding, std::vector<std::uint8_t>& out) {
      std::string_view bytes;
      if (most > 0) {
        require_or(ErrorCode::kUnsupported, encoding == Encoding::kRle,
                   "read {}: its levels are in {}, which is not read", leaf_.where,
                   encoding_name(encoding));
        const std::uint64_t size = take_little_endian(rest, 4, leaf_.where);
        bytes = take(rest, static_cast<std::size_t>(size), leaf_.where);
      }
      read_levels(bytes, most, page.num_values, out);
    };
    levels(leaf_.max_repetition, page.repetition_encoding, column_.repetitions);
    levels(leaf_.max_definition, page.definition_encoding, column_.definitions);
    read_values(page, rest);
  }

  void read_data_v2(const PageHeader& page, std::string_view stored) {
    start_entries(page);
    const std::size_t level_bytes = page.repetition_bytes + page.definition_bytes;
    std::string_view rest = stored;
    const std::string_view repetitions = take(rest, page.repetition_bytes, leaf_.where);
    const std::string_view definitions = take(rest, page.definition_bytes, leaf_.where);
    require_or(ErrorCode::kParse, level_bytes <= page.unpacked_bytes,
               "read {}: a page of {} bytes has {} of levels", leaf_.where, page.unpacked_bytes,
               level_bytes);
    read_levels(repetitions, leaf_.max_repetition, page.num_values, column_.repetitions);
    read_levels(definitions, leaf_.max_definition, page.num_values, column_.definitions);
    const std::int64_t codec =
        page.is_packed ? chunk_.codec : static_cast<std::int64_t>(Codec::kNone);
    read_values(page, unpack(rest, codec, page.unpacked_bytes - level_bytes, leaf_.where));
  }

  void start_entries(const PageHeader& page) {
    const auto count = static_cast<std::int64_t>(page.num_values);
    require_or(ErrorCode::kParse, count <= chunk_.num_values - num_entries(),
               "read {}: its pages hold more than {} values", leaf_.where, chunk_.num_values);
    budget_.take_values(count);
  }

  void read_levels(std::string_view bytes, int most, std::size_t count,
                   std::vector<std::uint8_t>& out) {
    if (most == 0) {
      out.insert(out.end(), count, std::uint8_t{0});
      return;
    }
    const auto bit_width = static_cast<int>(std::bit_width(static_cast<unsigned>(most)));
    for (const std::uint32_t level : hybrid_values(bytes, bit_width, count, leaf_.where)) {
      require_or(ErrorCode::kParse, level <= static_cast<std::uint32_t>(most),
                 "read {}: level {} of at most {}", leaf_.where, level, most);
      out.push_back(static_cast<std::uint8_t>(level));
    }
  }

  // Of the entries that were added last, `page.num_values` of them.
  void read_values(const PageHeader& page, std::string_view bytes) {
    std::size_t count = 0;
    for (std::size_t i = column_.definitions.size() - page.num_values;
         i < column_.definitions.size(); ++i) {
      count += column_.definitions[i] == leaf_.max_definition ? 1 : 0;
    }
    if (count == 0) return;
    for (Json& value : decoded(page.encoding, bytes, count)) {
      column_.values.push_back(std::move(value));
    }
  }

  std::vector<Json> decoded(Encoding encoding, std::string_view bytes, std::size_t count) {
    const bool is_text = leaf_.type == PhysicalType::kByteArray;
    const bool is_integer =
        leaf_.type == PhysicalType::kInt32 || leaf_.type == PhysicalType::kInt64;
    switch (encoding) {
      case Encoding::kPlain:
        return plain(bytes, count);
      case Encoding::kPlainDictionary:
      case Encoding::kRleDictionary:
        return from_dictionary(bytes, count);
      case Encoding::kRle:
        if (leaf_.type == PhysicalType::kBoolean) return booleans(bytes, count);
        break;
      case Encoding::kDeltaBinaryPacked:
        if (is_integer) return deltas(bytes, count);
        break;
      case Encoding::kDeltaLengthByteArray:
        if (is_text) return texts_by_length(bytes, count);
        break;
      case Encoding::kDeltaByteArray:
        if (is_text) return texts_by_prefix(bytes, count);
        break;
      case Encoding::kByteStreamSplit:
        if (!is_text && leaf_.type != PhysicalType::kBoolean)
          return plain(joined(bytes, count), count);
        break;
      default:
        break;
    }
    fail(ErrorCode::kUnsupported, "read {}: its values are in {}, which is not read", leaf_.where,
         encoding_name(encoding));
  }

  std::vector<Json> plain(std::string_view bytes, std::size_t count) {
    std::vector<Json> values;
    if (leaf_.type == PhysicalType::kBoolean) {
      const std::string_view bits = take(bytes, (count + 7) / 8, leaf_.where);
      for (std::size_t i = 0; i < count; ++i) {
        values.emplace_back(((bits[i / 8] >> (i % 8)) & 1) != 0);
      }
      return values;
    }
    for (std::size_t i = 0; i < count; ++i) values.push_back(plain_value(bytes));
    return values;
  }

  Json plain_value(std::string_view& bytes) {
    switch (leaf_.type) {
      case PhysicalType::kInt32:
        return integer(static_cast<std::int32_t>(take_little_endian(bytes, 4, leaf_.where)));
      case PhysicalType::kInt64:
        return integer(static_cast<std::int64_t>(take_little_endian(bytes, 8, leaf_.where)));
      case PhysicalType::kFloat:
        return real(std::bit_cast<float>(
            static_cast<std::uint32_t>(take_little_endian(bytes, 4, leaf_.where))));
      case PhysicalType::kDouble:
        return real(std::bit_cast<double>(take_little_endian(bytes, 8, leaf_.where)));
      default: {
        const std::uint64_t size = take_little_endian(bytes, 4, leaf_.where);
        return text(take(bytes, static_cast<std::size_t>(size), leaf_.where));
      }
    }
  }

  // Of `count` numbers, the first bytes of all of them, then the second, ...
  std::string joined(std::string_view bytes, std::size_t count) {
    const bool is_short = leaf_.type == PhysicalType::kInt32 || leaf_.type == PhysicalType::kFloat;
    const std::size_t width = is_short ? 4 : 8;
    const std::string_view streams = take(bytes, count * width, leaf_.where);
    std::string result;
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t k = 0; k < width; ++k) result += streams[k * count + i];
    }
    return result;
  }

  Json integer(std::int64_t value) const {
    if (!leaf_.is_unsigned) return value;
    if (leaf_.type == PhysicalType::kInt32) return static_cast<std::uint32_t>(value);
    return static_cast<std::uint64_t>(value);
  }

  static Json real(double value) { return std::isfinite(value) ? Json(value) : Json(); }

  Json text(std::string_view bytes) {
    budget_.take_text(static_cast<std::int64_t>(bytes.size()));
    require_utf8(bytes, leaf_.where);
    return std::string(bytes);
  }

  std::vector<Json> from_dictionary(std::string_view bytes, std::size_t count) {
    require_or(ErrorCode::kParse, has_dictionary_,
               "read {}: its values refer to a dictionary, and there is none before them",
               leaf_.where);
    const auto bit_width = static_cast<int>(take_little_endian(bytes, 1, leaf_.where));
    std::vector<Json> values;
    for (const std::uint32_t index : hybrid_values(bytes, bit_width, count, leaf_.where)) {
      require_or(ErrorCode::kParse, index < dictionary_.size(),
                 "read {}: number {} of a dictionary of {}", leaf_.where, index,
                 dictionary_.size());
      const Json& value = dictionary_[index];
      if (value.is_string()) {
        budget_.take_text(static_cast<std::int64_t>(value.get_ref<const std::string&>().size()));
      }
      values.push_back(value);
    }
    return values;
  }

  std::vector<Json> booleans(std::string_view bytes, std::size_t count) {
    const std::uint64_t size = take_little_endian(bytes, 4, leaf_.where);
    const std::string_view runs = take(bytes, static_cast<std::size_t>(size), leaf_.where);
    std::vector<Json> values;
    for (const std::uint32_t value : hybrid_values(runs, 1, count, leaf_.where)) {
      values.emplace_back(value != 0);
    }
    return values;
  }

  std::vector<Json> deltas(std::string_view bytes, std::size_t count) {
    std::vector<Json> values;
    for (const std::int64_t value : take_deltas(bytes, count, leaf_.where)) {
      // Sums of a column of 32 bits wrap around at 32 bits.
      values.push_back(
          integer(leaf_.type == PhysicalType::kInt32 ? static_cast<std::int32_t>(value) : value));
    }
    return values;
  }

  std::vector<std::string_view> pieces_by_length(std::string_view& bytes, std::size_t count) {
    const std::vector<std::int64_t> lengths = take_deltas(bytes, count, leaf_.where);
    std::vector<std::string_view> pieces;
    for (const std::int64_t length : lengths) {
      // A negative length is a huge one.
      pieces.push_back(take(bytes, static_cast<std::size_t>(length), leaf_.where));
    }
    return pieces;
  }

  std::vector<Json> texts_by_length(std::string_view bytes, std::size_t count) {
    std::vector<Json> values;
    for (const std::string_view piece : pieces_by_length(bytes, count)) {
      values.push_back(text(piece));
    }
    return values;
  }

  std::vector<Json> texts_by_prefix(std::string_view bytes, std::size_t count) {
    const std::vector<std::int64_t> prefixes = take_deltas(bytes, count, leaf_.where);
    const std::vector<std::string_view> rests = pieces_by_length(bytes, count);
    std::vector<Json> values;
    std::string last;
    for (std::size_t i = 0; i < count; ++i) {
      const auto prefix = static_cast<std::uint64_t>(prefixes[i]);
      require_or(ErrorCode::kParse, prefix <= last.size(),
                 "read {}: a text shares {} bytes with one of {}", leaf_.where, prefixes[i],
                 last.size());
      last.resize(static_cast<std::size_t>(prefix));
      last += rests[i];
      values.push_back(text(last));
    }
    return values;
  }

  const ColumnChunk& chunk_;
  const Leaf& leaf_;
  Budget& budget_;
  Column column_;
  std::vector<Json> dictionary_;
  bool has_dictionary_ = false;
};

}  // namespace

void Budget::take(std::string_view what, std::int64_t count, std::int64_t most,
                  std::int64_t& taken) {
  require_or(ErrorCode::kParse, count <= most - taken, "read {}: more than {} {}", where_, most,
             what);
  taken += count;
}

void Budget::take_page(std::int64_t unpacked_bytes) {
  require_or(ErrorCode::kParse, unpacked_bytes <= limits_.max_page_bytes,
             "read {}: a page of {} bytes (at most {} are accepted)", where_, unpacked_bytes,
             limits_.max_page_bytes);
  take("pages", 1, limits_.max_pages, pages_);
  take("bytes of pages", unpacked_bytes, limits_.max_total_bytes, page_bytes_);
}

Column read_column(const ColumnChunk& chunk, const Leaf& leaf, Budget& budget) {
  return ChunkReader(chunk, leaf, budget).read();
}

}  // namespace moebench::parquet
