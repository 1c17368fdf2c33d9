// Our declarations of CUPTI against the toolkit's.
#if __has_include(<cupti_activity.h>)
#include <cuda.h>
//
#include <cupti.h>
#include <cupti_activity.h>

#include "kernels/core/cupti_records.h"

namespace moebench::gpu::cupti {
namespace {

#define SAME_PLACE(ours, our_field, theirs, their_field) \
  static_assert(offsetof(ours, our_field) == offsetof(theirs, their_field))
SAME_PLACE(Record, kind, CUpti_Activity, kind);
SAME_PLACE(Kernel, kind, CUpti_ActivityKernel10, kind);
SAME_PLACE(Kernel, start, CUpti_ActivityKernel10, start);
SAME_PLACE(Kernel, end, CUpti_ActivityKernel10, end);
SAME_PLACE(Kernel, correlation_id, CUpti_ActivityKernel10, correlationId);
SAME_PLACE(Kernel, name, CUpti_ActivityKernel10, name);
SAME_PLACE(Kernel, start, CUpti_ActivityKernel4, start);
SAME_PLACE(Kernel, correlation_id, CUpti_ActivityKernel4, correlationId);
SAME_PLACE(Kernel, name, CUpti_ActivityKernel4, name);
SAME_PLACE(ExternalCorrelation, external_kind, CUpti_ActivityExternalCorrelation, externalKind);
SAME_PLACE(ExternalCorrelation, external_id, CUpti_ActivityExternalCorrelation, externalId);
SAME_PLACE(ExternalCorrelation, correlation_id, CUpti_ActivityExternalCorrelation, correlationId);
static_assert(kKindRuntime == CUPTI_ACTIVITY_KIND_RUNTIME);
static_assert(kKindConcurrentKernel == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
static_assert(kKindExternalCorrelation == CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION);
static_assert(kCustom == CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0);
static_assert(kNoMoreRecords == CUPTI_ERROR_MAX_LIMIT_REACHED);
static_assert(kFlushForced == CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);

}  // namespace
}  // namespace moebench::gpu::cupti
#endif
