// The device of builds with MOEBENCH_CUDA: the CUDA runtime, linked statically, on the first GPU
// that it shows (CUDA_VISIBLE_DEVICES chooses). The runtime looks for the driver when it is first
// called, so a machine without one starts the program as fast as any other; no call is made before
// somebody asks for the device.
#include <cuda.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "kernels/core/device.h"
#include "kernels/core/error.h"
#include "kernels/core/gpu_architectures.h"

namespace moebench::gpu {

struct GraphHandle {
  cudaGraphExec_t instance = nullptr;
  std::size_t bytes = 0;
  ~GraphHandle() {
    if (instance != nullptr) cudaGraphExecDestroy(instance);
  }
};

namespace {

constexpr int kOrdinal = 0;

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Throws Error(kDevice) with what CUDA says of it, unless `status` is success. What went wrong in
// a kernel is told by some later call, and leaves the process's GPU unusable.
void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) [[likely]] {
    return;
  }
  cudaGetLastError();  // what can be forgotten is not to be told again by the next launch
  fail(ErrorCode::kDevice, "{}: {} ({})", what, cudaGetErrorString(status),
       cudaGetErrorName(status));
}

std::string no_kernels_for(const DeviceInfo& gpu) {
  if (runs_on(MOEBENCH_CUDA_ARCHITECTURES, gpu.compute_major, gpu.compute_minor)) return "";
  return fmt::format(
      "this moebench was built for {}, and {} has compute capability {}.{}: configure with "
      "-DCMAKE_CUDA_ARCHITECTURES={}{}-real",
      architecture_names(MOEBENCH_CUDA_ARCHITECTURES), gpu.name, gpu.compute_major,
      gpu.compute_minor, gpu.compute_major, gpu.compute_minor);
}

// Empty, or why this machine has no GPU for us. Makes no context, which would cost GPU memory.
std::string find_problem(DeviceInfo& info) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  int driver = 0;
  cudaDriverGetVersion(&driver);
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  if (status != cudaSuccess) cudaGetLastError();
  // Without any driver the runtime answers that it is insufficient.
  if (status == cudaErrorInsufficientDriver && driver == 0) {
    return "no NVIDIA driver is installed (libcuda.so.1 was not found): CUDA plans need a GPU and "
           "its driver";
  }
  if (status == cudaErrorInsufficientDriver) {
    return fmt::format(
        "the NVIDIA driver is for CUDA {}, and this moebench was built with CUDA {}: update the "
        "driver, or build with an older toolkit",
        version_text(driver), version_text(runtime));
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    if (visible != nullptr) {
      return fmt::format(
          "the NVIDIA driver shows no GPU, and CUDA_VISIBLE_DEVICES is '{}': unset it, or name one "
          "of `nvidia-smi -L`",
          visible);
    }
    return "the NVIDIA driver shows no GPU (does `nvidia-smi -L` list one?)";
  }
  if (status != cudaSuccess) {
    return fmt::format("CUDA cannot be used: {} ({})", cudaGetErrorString(status),
                       cudaGetErrorName(status));
  }
  cudaDeviceProp properties{};
  if (const cudaError_t asked = cudaGetDeviceProperties(&properties, kOrdinal);
      asked != cudaSuccess) {
    cudaGetLastError();
    return fmt::format("the GPU does not answer: {} ({})", cudaGetErrorString(asked),
                       cudaGetErrorName(asked));
  }
  info.name = properties.name;
  info.compute_major = properties.major;
  info.compute_minor = properties.minor;
  info.num_sms = properties.multiProcessorCount;
  info.total_bytes = properties.totalGlobalMem;
  info.l2_bytes = static_cast<std::size_t>(properties.l2CacheSize);
  info.shared_bytes_per_block = properties.sharedMemPerBlockOptin;
  info.driver_version = driver;
  info.runtime_version = runtime;
  info.uuid = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) info.uuid += '-';
    info.uuid += fmt::format("{:02x}", static_cast<unsigned char>(properties.uuid.bytes[i]));
  }
  info.pci_bus_id = fmt::format("{:04x}:{:02x}:{:02x}.0", properties.pciDomainID,
                                properties.pciBusID, properties.pciDeviceID);
  return no_kernels_for(info);
}

// Our event handles are CUDA's under another name.
cudaEvent_t cuda(EventHandle* event) { return reinterpret_cast<cudaEvent_t>(event); }

class CudaDevice : public Device {
 public:
  std::string unavailable() override {
    find();
    return unavailable_;
  }
  const DeviceInfo& info() override {
    find();
    require_or(ErrorCode::kUnsupported, unavailable_.empty(), "use the GPU: {}", unavailable_);
    return info_;
  }
  std::string has_no_kernels_for(const DeviceInfo& gpu) override { return no_kernels_for(gpu); }
  std::size_t free_bytes() override {
    std::size_t free_now = 0;
    std::size_t total = 0;
    check(cudaMemGetInfo(&free_now, &total), "ask the GPU for its free memory");
    return free_now;
  }

  std::byte* allocate(std::size_t bytes, const char* purpose) override {
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, std::max<std::size_t>(bytes, 1));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      fail(ErrorCode::kOutOfMemory, "allocate {} bytes for {} on {}: {} of {} bytes are free",
           bytes, purpose, info().name, free_bytes(), info().total_bytes);
    }
    check(status, "allocate GPU memory");
    return static_cast<std::byte*>(memory);
  }
  void free(std::byte* memory) noexcept override { cudaFree(memory); }

  std::byte* allocate_pinned(std::size_t bytes, const char* purpose) override {
    void* memory = nullptr;
    const cudaError_t status = cudaMallocHost(&memory, std::max<std::size_t>(bytes, 1));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      fail(ErrorCode::kOutOfMemory,
           "allocate {} bytes for {} in pinned host memory: the system refuses (see `ulimit -l` "
           "and free memory)",
           bytes, purpose);
    }
    check(status, "allocate pinned host memory");
    return static_cast<std::byte*>(memory);
  }
  void free_pinned(std::byte* memory) noexcept override { cudaFreeHost(memory); }

  void copy(void* to, const void* from, std::size_t bytes, Copy kind, Stream stream) override {
    if (bytes == 0) return;
    const cudaMemcpyKind direction = kind == Copy::kToDevice ? cudaMemcpyHostToDevice
                                     : kind == Copy::kToHost ? cudaMemcpyDeviceToHost
                                                             : cudaMemcpyDeviceToDevice;
    check(cudaMemcpyAsync(to, from, bytes, direction, stream), "copy to or from the GPU");
  }
  void fill_zero(void* memory, std::size_t bytes, Stream stream) override {
    if (bytes == 0) return;
    check(cudaMemsetAsync(memory, 0, bytes, stream), "fill GPU memory with zeros");
  }

  // Not ordered with the default stream, on which nothing of ours runs.
  Stream create_stream() override {
    Stream stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "create a stream");
    return stream;
  }
  void destroy_stream(Stream stream) noexcept override { cudaStreamDestroy(stream); }
  void synchronize(Stream stream) override {
    check(cudaStreamSynchronize(stream), "run what was enqueued on the GPU");
  }

  // Relaxed: kernels are loaded at their first launch, and loading is refused during a capture that
  // is stricter.
  void begin_capture(Stream stream) override {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "begin a graph");
  }
  GraphHandle* end_capture(Stream stream) override {
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream, &graph), "end the capture of a graph");
    const std::size_t free_before = free_bytes();
    auto handle = std::make_unique<GraphHandle>();
    const cudaError_t status = cudaGraphInstantiate(&handle->instance, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "instantiate a graph");
    // Now, and not within the first launch, which may be timed.
    check(cudaGraphUpload(handle->instance, stream), "upload a graph");
    const std::size_t free_after = free_bytes();
    handle->bytes = free_before - std::min(free_before, free_after);
    return handle.release();
  }
  std::size_t graph_bytes(const GraphHandle* graph) override { return graph->bytes; }
  void launch_graph(GraphHandle* graph, Stream stream) override {
    check(cudaGraphLaunch(graph->instance, stream), "launch a graph");
  }
  void destroy_graph(GraphHandle* graph) noexcept override { delete graph; }

  TensorMap make_tensor_map(const TiledMatrix& matrix) override {
    check_limits(matrix);
    // The driver's function, found through the runtime: nothing links with libcuda.
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                           cudaEnableDefault, &found),
          "find cuTensorMapEncodeTiled in the driver");
    require_or(ErrorCode::kDevice, found == cudaDriverEntryPointSuccess && function != nullptr,
               "make a tensor map: the driver has no cuTensorMapEncodeTiled");
    const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
    // Sizes and strides from the innermost dimension outwards.
    const std::array<cuuint64_t, 2> sizes = {static_cast<cuuint64_t>(matrix.columns),
                                             static_cast<cuuint64_t>(matrix.rows)};
    const std::array<cuuint64_t, 1> strides = {static_cast<cuuint64_t>(matrix.row_bytes)};
    const std::array<cuuint32_t, 2> tile = {static_cast<cuuint32_t>(matrix.tile_columns),
                                            static_cast<cuuint32_t>(matrix.tile_rows)};
    const std::array<cuuint32_t, 2> steps = {1, 1};
    CUtensorMap map{};
    static_assert(sizeof map == sizeof(TensorMap) && alignof(CUtensorMap) <= alignof(TensorMap));
    const CUresult status =
        encode(&map,
               matrix.element_bytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8
                                         : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
               2, const_cast<void*>(matrix.data), sizes.data(), strides.data(), tile.data(),
               steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
               matrix.swizzle == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
               : matrix.swizzle == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                      : CU_TENSOR_MAP_SWIZZLE_NONE,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    require(
        status == CUDA_SUCCESS,
        "make a tensor map of {} x {} in rows of {} bytes, tiles of {} x {}: the driver refuses "
        "(CUDA error {})",
        matrix.rows, matrix.columns, matrix.row_bytes, matrix.tile_rows, matrix.tile_columns,
        static_cast<int>(status));
    TensorMap result{};
    std::memcpy(&result, &map, sizeof map);
    return result;
  }

  EventHandle* create_event() override {
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "create an event");
    return reinterpret_cast<EventHandle*>(event);
  }
  void destroy_event(EventHandle* event) noexcept override { cudaEventDestroy(cuda(event)); }
  void record_event(EventHandle* event, Stream stream) override {
    check(cudaEventRecord(cuda(event), stream), "record an event");
  }
  void wait_for(EventHandle* event) override {
    check(cudaEventSynchronize(cuda(event)), "run what was enqueued on the GPU");
  }
  double milliseconds_between(EventHandle* first, EventHandle* second) override {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, cuda(first), cuda(second)), "read two events");
    return milliseconds;
  }

 private:
  void find() {
    std::call_once(asked_, [this] { unavailable_ = find_problem(info_); });
  }

  std::once_flag asked_;
  std::string unavailable_;
  DeviceInfo info_;
};

}  // namespace

Device* linked_device() {
  static CudaDevice device;
  return &device;
}

}  // namespace moebench::gpu
