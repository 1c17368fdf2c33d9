// The schema as a tree, and rows put together from columns by their levels ("Dremel").
//
// A column is a list of entries. An entry's definition level says how much of the path to its value
// is there; its repetition level, at which list of the path it is a further element (0: a new row).
// Source: Melnik et al. 2010, Dremel: Interactive Analysis of Web-Scale Datasets, section 4.
#include "datasets/parquet.h"

#include <array>
#include <set>

#include "datasets/parquet_column.h"
#include "datasets/parquet_footer.h"
#include "kernels/core/error.h"

namespace moebench {
namespace parquet {
namespace {

struct Node {
  enum class Kind { kLeaf, kStructure, kList };
  Kind kind = Kind::kLeaf;
  std::string name;
  std::string path;
  int definition = 0;       // from this level on it is not null
  int list_definition = 0;  // of a list: from this level on it has elements
  int list_repetition = 0;  // of a list: the level of its further elements
  std::size_t first_leaf = 0;
  std::size_t num_leaves = 0;
  std::vector<Node> children;  // of a list: its element
};

// Reads the list of elements, which is the tree depth first.
class SchemaReader {
 public:
  SchemaReader(const std::vector<SchemaElement>& elements, std::string_view where)
      : elements_(elements), where_(where) {}

  Node tree() {
    require_or(ErrorCode::kParse, !elements_.empty(), "read {}: it has no schema", where_);
    Node root;
    next_ = 1;
    structure(root, elements_.front(), {});
    require_or(ErrorCode::kParse, next_ == elements_.size(),
               "read {}: its schema has elements that belong to no column", where_);
    return root;
  }

  std::vector<Leaf> leaves() { return std::move(leaves_); }

 private:
  struct Levels {
    int depth = 0;
    int definition = 0;
    int repetition = 0;
  };

  const SchemaElement& next_element() {
    require_or(ErrorCode::kParse, next_ < elements_.size(), "read {}: its schema is cut off",
               where_);
    return elements_[next_++];
  }

  // `element`, whose children come next.
  Node node(const SchemaElement& element, std::string path, Levels levels) {
    require_or(ErrorCode::kParse, ++levels.depth <= kMaxRowDepth,
               "read {}: its schema is nested deeper than {}", where_, kMaxRowDepth);
    require_utf8(element.name, fmt::format("{}: the name of a column", where_));
    Node result;
    result.name = element.name;
    result.path = std::move(path);
    require_or(ErrorCode::kUnsupported, element.repetition != Repetition::kRepeated,
               "read {}: column {}: it is repeated without being a list, which is not read", where_,
               result.path);
    if (element.repetition == Repetition::kOptional) ++levels.definition;
    result.definition = levels.definition;
    if (element.type) {
      leaf(result, element, levels);
    } else if (element.meaning == Meaning::kList) {
      list(result, element, levels);
    } else {
      require_or(ErrorCode::kUnsupported, element.meaning == Meaning::kPlain,
                 "read {}: column {}: it is a {}, which is not read (lists and structures are)",
                 where_, result.path, element.meaning_name);
      structure(result, element, levels);
    }
    return result;
  }

  void structure(Node& result, const SchemaElement& element, Levels levels) {
    result.kind = Node::Kind::kStructure;
    result.first_leaf = leaves_.size();
    require_or(ErrorCode::kParse, element.num_children > 0, "read {}: '{}' has no columns", where_,
               result.path);
    std::set<std::string> names;
    for (std::int64_t i = 0; i < element.num_children; ++i) {
      const SchemaElement& child = next_element();
      const std::string path =
          result.path.empty() ? child.name : fmt::format("{}.{}", result.path, child.name);
      require_or(ErrorCode::kParse, names.insert(child.name).second,
                 "read {}: two columns have the name {}", where_, path);
      result.children.push_back(node(child, path, levels));
    }
    result.num_leaves = leaves_.size() - result.first_leaf;
  }

  // optional group a (LIST) { repeated group list { optional ... element } }, and the older forms
  // without the middle: see LogicalTypes.md of the format, "Lists", for its rules.
  void list(Node& result, const SchemaElement& element, Levels levels) {
    result.kind = Node::Kind::kList;
    result.first_leaf = leaves_.size();
    require_or(ErrorCode::kParse, element.num_children == 1,
               "read {}: column {}: a list with {} parts in place of one", where_, result.path,
               element.num_children);
    const SchemaElement& repeated = next_element();
    require_or(ErrorCode::kParse, repeated.repetition == Repetition::kRepeated,
               "read {}: column {}: a list whose elements are not repeated", where_, result.path);
    result.list_definition = ++levels.definition;
    result.list_repetition = ++levels.repetition;
    const std::string path = fmt::format("{}.{}", result.path, repeated.name);
    const bool is_element = repeated.type || repeated.num_children != 1 ||
                            repeated.name == "array" || repeated.name == element.name + "_tuple";
    if (is_element) {
      SchemaElement required = repeated;
      required.repetition = Repetition::kRequired;
      result.children.push_back(node(required, path, levels));
    } else {
      const SchemaElement& child = next_element();
      result.children.push_back(node(child, fmt::format("{}.{}", path, child.name), levels));
    }
    result.num_leaves = leaves_.size() - result.first_leaf;
  }

  void leaf(Node& result, const SchemaElement& element, Levels levels) {
    const PhysicalType type = *element.type;
    const bool is_text = type == PhysicalType::kByteArray;
    const bool is_integer = type == PhysicalType::kInt32 || type == PhysicalType::kInt64;
    const bool is_read = type != PhysicalType::kInt96 && type != PhysicalType::kFixedLenByteArray;
    const bool fits = element.meaning == Meaning::kPlain || element.meaning == Meaning::kNull ||
                      (element.meaning == Meaning::kText && is_text) ||
                      (element.meaning == Meaning::kInteger && is_integer);
    require_or(ErrorCode::kUnsupported, is_read && fits,
               "read {}: column {}: it holds {}{}{}, which is not read (text, integers, booleans, "
               "floating-point numbers, lists and structures are)",
               where_, result.path, element.meaning_name,
               element.meaning_name.empty() ? "" : " as ", type_name(type));
    result.kind = Node::Kind::kLeaf;
    result.first_leaf = leaves_.size();
    result.num_leaves = 1;
    leaves_.push_back({.path = result.path,
                       .where = fmt::format("{}: column {}", where_, result.path),
                       .type = type,
                       .is_unsigned = element.is_unsigned,
                       .max_definition = levels.definition,
                       .max_repetition = levels.repetition});
  }

  static std::string_view type_name(PhysicalType type) {
    constexpr std::array<std::string_view, 8> kNames = {
        "BOOLEAN", "INT32",  "INT64",      "INT96",
        "FLOAT",   "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"};
    return kNames[static_cast<std::size_t>(type)];
  }

  const std::vector<SchemaElement>& elements_;
  std::string_view where_;
  std::size_t next_ = 0;
  std::vector<Leaf> leaves_;
};

// Puts the rows of one row group together.
class Assembler {
 public:
  Assembler(const std::vector<Leaf>& leaves, std::vector<Column> columns)
      : leaves_(leaves),
        columns_(std::move(columns)),
        next_(leaves.size()),
        value_(leaves.size()) {}

  Json row(const Node& root) {
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
      require_or(ErrorCode::kParse, repetition(i) == 0, "read {}: a row begins within a list",
                 leaves_[i].where);
    }
    return structure(root);
  }

  void finish() const {
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
      require_or(ErrorCode::kParse, next_[i] == columns_[i].definitions.size(),
                 "read {}: it has more values than the row group has rows", leaves_[i].where);
    }
  }

 private:
  bool at_end(std::size_t leaf) const { return next_[leaf] == columns_[leaf].definitions.size(); }

  int definition(std::size_t leaf) const {
    require_or(ErrorCode::kParse, !at_end(leaf), "read {}: it has fewer values than rows",
               leaves_[leaf].where);
    return columns_[leaf].definitions[next_[leaf]];
  }
  int repetition(std::size_t leaf) const {
    definition(leaf);
    return columns_[leaf].repetitions[next_[leaf]];
  }

  // The same for all columns of a node, or they do not belong together.
  template <class Predicate>
  bool all(const Node& node, const Predicate& holds) const {
    const bool first = holds(node.first_leaf);
    for (std::size_t i = 1; i < node.num_leaves; ++i) {
      require_or(ErrorCode::kParse, holds(node.first_leaf + i) == first,
                 "read {}: its parts disagree about what there is of {}",
                 leaves_[node.first_leaf + i].where, node.path);
    }
    return first;
  }

  bool is_defined(const Node& node, int level) const {
    return all(node, [&](std::size_t leaf) { return definition(leaf) >= level; });
  }

  // Past the one entry that says that a node, or what is in it, is not there.
  void pass(const Node& node) {
    for (std::size_t i = 0; i < node.num_leaves; ++i) ++next_[node.first_leaf + i];
  }

  Json value(const Node& node) {
    if (!is_defined(node, node.definition)) {
      pass(node);
      return nullptr;
    }
    switch (node.kind) {
      case Node::Kind::kStructure:
        return structure(node);
      case Node::Kind::kList:
        return list(node);
      case Node::Kind::kLeaf:
        break;
    }
    ++next_[node.first_leaf];
    return std::move(columns_[node.first_leaf].values[value_[node.first_leaf]++]);
  }

  Json structure(const Node& node) {
    Json object = Json::object();
    for (const Node& child : node.children) object[child.name] = value(child);
    return object;
  }

  Json list(const Node& node) {
    Json array = Json::array();
    if (!is_defined(node, node.list_definition)) {
      pass(node);
      return array;
    }
    do {
      array.push_back(value(node.children.front()));
    } while (all(node, [&](std::size_t leaf) {
      return !at_end(leaf) && repetition(leaf) == node.list_repetition;
    }));
    return array;
  }

  const std::vector<Leaf>& leaves_;
  std::vector<Column> columns_;
  std::vector<std::size_t> next_;   // entry, by leaf
  std::vector<std::size_t> value_;  // by leaf
};

std::vector<Column> read_columns(const RowGroup& group, const std::vector<Leaf>& leaves,
                                 Budget& budget, std::string_view where) {
  require_or(ErrorCode::kParse, group.columns.size() == leaves.size(),
             "read {}: a row group has {} columns, the schema {}", where, group.columns.size(),
             leaves.size());
  std::vector<Column> columns;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    require_or(ErrorCode::kParse, group.columns[i].path == leaves[i].path,
               "read {}: column '{}' stands where {} belongs", where, group.columns[i].path,
               leaves[i].path);
    columns.push_back(read_column(group.columns[i], leaves[i], budget));
  }
  return columns;
}

}  // namespace
}  // namespace parquet

std::vector<DataRow> parse_parquet(std::string_view bytes, std::string_view where,
                                   const ParquetLimits& limits) {
  const parquet::Footer footer = parquet::read_footer(bytes, where);
  parquet::SchemaReader schema(footer.schema, where);
  const parquet::Node root = schema.tree();
  const std::vector<parquet::Leaf> leaves = schema.leaves();
  parquet::Budget budget(limits, where);
  std::vector<DataRow> rows;
  for (const parquet::RowGroup& group : footer.row_groups) {
    budget.take_rows(group.num_rows);
    parquet::Assembler assembler(leaves, parquet::read_columns(group, leaves, budget, where));
    for (std::int64_t i = 0; i < group.num_rows; ++i) {
      rows.push_back({assembler.row(root), fmt::format("{}: row {}", where, rows.size() + 1)});
    }
    assembler.finish();
  }
  return rows;
}

}  // namespace moebench
