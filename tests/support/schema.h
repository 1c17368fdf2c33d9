// Validating a document against a JSON Schema, with valijson.
#pragma once

#include <string>

#include "kernels/core/json_fields.h"

namespace moebench::test {

// What is wrong with `document` by the schema, one line per finding; "" if it validates.
std::string schema_errors(const Json& schema, const Json& document);

}  // namespace moebench::test
