# Whether and how CUDA kernels are built. Sets MOEBENCH_CUDA_BUILD, and MOEBENCH_CUDA_TEXT, which
# `moebench doctor` tells ("CUDA 13.0.88 for 90a-real").
#
#   -DMOEBENCH_CUDA=AUTO|ON|OFF             with CUDA if nvcc is found (AUTO), by all means, or never
#   -DCMAKE_CUDA_ARCHITECTURES=90a-real     any list of 80-real, 89-real, 90a-real, 100a-real, 120a-real, ...;
#                                           kernels that need wgmma run on 90a only
set(MOEBENCH_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (if nvcc is found), ON or OFF")
set_property(CACHE MOEBENCH_CUDA PROPERTY STRINGS AUTO ON OFF)
set(MOEBENCH_CUDA_BUILD OFF)
set(MOEBENCH_CUDA_TEXT "")

# moebench_cuda_absent(REASON): goes on without CUDA, or stops if it was asked for.
macro(moebench_cuda_absent REASON)
  if(MOEBENCH_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA: not built, CPU plans only (${REASON})")
  else()
    message(FATAL_ERROR "MOEBENCH_CUDA=${MOEBENCH_CUDA}, but ${REASON}")
  endif()
endmacro()

string(TOUPPER "${MOEBENCH_CUDA}" MOEBENCH_CUDA)
if(NOT MOEBENCH_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "MOEBENCH_CUDA is '${MOEBENCH_CUDA}' (known: AUTO, ON, OFF)")
endif()
if(MOEBENCH_CUDA STREQUAL "OFF")
  message(STATUS "CUDA: not built, CPU plans only (MOEBENCH_CUDA=OFF)")
  return()
endif()

# Toolkits from NVIDIA's packages are often not in the PATH.
if(NOT CMAKE_CUDA_COMPILER AND "$ENV{CUDACXX}" STREQUAL "")
  find_program(MOEBENCH_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  mark_as_advanced(MOEBENCH_NVCC)
  if(NOT MOEBENCH_NVCC)
    moebench_cuda_absent("nvcc was found neither in PATH nor in /usr/local/cuda/bin")
    return()
  endif()
  set(ENV{CUDACXX} ${MOEBENCH_NVCC})
endif()
# Before the language is enabled, or it would choose one.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90a-real CACHE STRING "Architectures that CUDA kernels are built for")
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  unset(CMAKE_CUDA_COMPILER CACHE)  # so that the next configuration asks again
  moebench_cuda_absent("$ENV{CUDACXX} does not work (see CMakeFiles/CMakeError.log)")
  return()
endif()
enable_language(CUDA)
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG -lineinfo")
# CMake 3.25 does not know that nvcc has C++20: it would compile C++17, or refuse.
if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
find_package(CUDAToolkit QUIET)
if(NOT TARGET CUDA::cudart_static)
  moebench_cuda_absent("the toolkit of ${CMAKE_CUDA_COMPILER} has no libcudart_static.a")
  return()
endif()

set(MOEBENCH_CUDA_BUILD ON)
list(JOIN CMAKE_CUDA_ARCHITECTURES " " ARCHITECTURES)
set(MOEBENCH_CUDA_TEXT "CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${ARCHITECTURES}")
message(STATUS "CUDA: built with ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION} for ${ARCHITECTURES}")
