// What a record measures, without its plan.
#pragma once

#include <string>

#include "bench/record.h"

namespace moebench::test {

inline std::string label_of(const Record& record) {
  return scenario_of_label(record.label, record.plan);
}

}  // namespace moebench::test
