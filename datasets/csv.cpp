// A scanner over the text, one field at a time.
#include "datasets/csv.h"

#include "kernels/core/error.h"

namespace moebench {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

class Scanner {
 public:
  Scanner(std::string_view text, std::string_view where, char separator, const CsvLimits& limits)
      : text_(text), where_(where), separator_(separator), limits_(limits) {
    if (text_.starts_with(kByteOrderMark)) at_ = kByteOrderMark.size();
  }

  bool at_end() const { return at_ == text_.size(); }

  std::vector<std::string> record() {
    std::vector<std::string> fields;
    do {
      require_or(ErrorCode::kParse, fields.size() < limits_.max_columns,
                 "parse {}: line {}: more than {} fields", where_, line_, limits_.max_columns);
      fields.push_back(field());
    } while (take(separator_));
    take('\r');
    if (take('\n')) ++line_;
    return fields;
  }

 private:
  bool take(char c) {
    if (at_end() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool at_line_end() const {
    return at_end() || text_[at_] == '\n' || text_.substr(at_, 2) == "\r\n";
  }

  std::string field() {
    std::string value = !at_end() && text_[at_] == '"' ? quoted() : plain();
    require_or(ErrorCode::kParse, value.size() <= limits_.max_field_bytes,
               "parse {}: line {}: a field of {} bytes (at most {} are accepted)", where_, line_,
               value.size(), limits_.max_field_bytes);
    return value;
  }

  std::string plain() {
    const std::size_t begin = at_;
    while (!at_line_end() && text_[at_] != separator_) {
      require_or(ErrorCode::kParse, text_[at_] != '"',
                 "parse {}: line {}: a quote inside a field that does not begin with one", where_,
                 line_);
      ++at_;
    }
    return std::string(text_.substr(begin, at_ - begin));
  }

  std::string quoted() {
    const std::size_t first_line = line_;
    std::string value;
    ++at_;
    while (true) {
      const std::size_t quote = text_.find('"', at_);
      require_or(ErrorCode::kParse, quote != std::string_view::npos,
                 "parse {}: line {}: a quoted field is never closed", where_, first_line);
      const std::string_view piece = text_.substr(at_, quote - at_);
      for (const char c : piece) line_ += c == '\n' ? 1 : 0;
      value += piece;
      at_ = quote + 1;
      if (!take('"')) break;
      value += '"';
    }
    require_or(ErrorCode::kParse, at_line_end() || text_[at_] == separator_,
               "parse {}: line {}: text after the closing quote of a field", where_, line_);
    return value;
  }

  std::string_view text_;
  std::string_view where_;
  char separator_;
  const CsvLimits& limits_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
};

}  // namespace

std::vector<std::vector<std::string>> parse_csv(std::string_view text, std::string_view where,
                                                char separator, const CsvLimits& limits) {
  Scanner scanner(text, where, separator, limits);
  std::vector<std::vector<std::string>> records;
  while (!scanner.at_end()) {
    std::vector<std::string> fields = scanner.record();
    if (fields.size() == 1 && fields.front().empty()) continue;
    require_or(ErrorCode::kParse, records.size() < limits.max_rows, "parse {}: more than {} rows",
               where, limits.max_rows);
    records.push_back(std::move(fields));
  }
  return records;
}

}  // namespace moebench
