# Sourced by the other scripts: installs what is missing with apt, and builds.
#
#   ensure_packages PACKAGE...   installs those that are not there; needs root or sudo only then
#   build PRESET TARGET...       configures (once) and builds incrementally
#   $RELEASE_PRESET              release, or what MOEBENCH_RELEASE_PRESET names (ci: the same program, without
#                                the plain SIMT suite)
#   $ASAN_PRESET                 asan, or what MOEBENCH_ASAN_PRESET names (ci-asan: the same, without the
#                                tests of bench, reports and cli; their parsers are fuzzed in both)
#
# The CUDA toolkit is no Debian package: CUDA kernels are built where nvcc is found, in the PATH or in
# /usr/local/cuda, and left out elsewhere (see kernels/cuda.cmake).

BUILD_PACKAGES="g++ cmake ninja-build pkg-config git ca-certificates
  libfmt-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libxxhash-dev libbenchmark-dev libboost-math-dev libjs-chart.js
  libcurl4-openssl-dev libarchive-dev libssl-dev libsoci-dev zlib1g-dev libsnappy-dev libzstd-dev"
# postgresql: tests start a server of their own. The others read what we write: xmllint, compare.py.
TEST_PACKAGES="catch2 libvalijson-dev postgresql libxml2-utils libbenchmark-tools python3-scipy python3-yaml"
RELEASE_PRESET=${MOEBENCH_RELEASE_PRESET:-release}
ASAN_PRESET=${MOEBENCH_ASAN_PRESET:-asan}

ensure_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
      missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
      echo "error: install packages: not root and no sudo; as root, run: apt-get install ${missing[*]}" >&2
      return 2
    }
    as_root=(sudo)
  fi
  echo "installing: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

build() {
  local preset=$1
  shift
  # Configuring again costs seconds; ninja does it by itself when a CMakeLists.txt changed.
  [ -f "build/$preset/build.ninja" ] || cmake --preset "$preset" >"build-$preset.log" 2>&1 || {
    cat "build-$preset.log" >&2
    return 2
  }
  # Whether CUDA kernels are among what is built.
  [ ! -f "build-$preset.log" ] || sed -n 's/^-- \(CUDA: \)/\1/p' "build-$preset.log"
  rm -f "build-$preset.log"
  cmake --build "build/$preset" --target "$@"
}
