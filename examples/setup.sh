# Sets up what the quickstart and the tests need, and does nothing the second time. Meant to be sourced:
#   root=<repository>; source "$root/examples/setup.sh"
# Leaves: a virtual environment in $root/.venv holding torch and this package, its interpreter in $python, and the
# function `step` for headings. Knobs: PYTHON (interpreter that makes the environment), HUSHGRAD_JOBS (parallel
# compilations, default 2).
set -euo pipefail

apt_packages=(build-essential cmake ninja-build ccache libssl-dev libargon2-dev libsqlite3-dev libeigen3-dev libgtest-dev
  nlohmann-json3-dev libpq-dev postgresql python3-venv python3-dev
  libpango-1.0-0 libpangoft2-1.0-0 fonts-dejavu-core softhsm2)
torch_version=2.13.0
venv="$root/.venv"
python="$venv/bin/python"

# The caller's interpreter settings must not decide what is imported or linked.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV
export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export CMAKE_BUILD_PARALLEL_LEVEL="${HUSHGRAD_JOBS:-2}"
# One compiler name and one locale in every build: ccache tells them apart, and would compile everything twice.
export CC="${CC:-gcc}" CXX="${CXX:-g++}" LC_ALL=C.UTF-8

step() { printf '\n== %s\n' "$*"; }
fail() { printf '[setup] %s\n' "$*" >&2; exit 1; }

missing_apt_packages() {
  local package
  for package in "${apt_packages[@]}"; do
    [[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || printf '%s\n' "$package"
  done
}

install_apt_packages() {
  if ! command -v dpkg-query >/dev/null; then
    printf '[setup] This is not a Debian system; expecting the equivalents of: %s\n' "${apt_packages[*]}"
    return
  fi
  local missing as_root=()
  mapfile -t missing < <(missing_apt_packages)
  ((${#missing[@]})) || return 0
  step "Installing system packages: ${missing[*]}"
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null || fail "Expected these packages, and may not install them. Run this, then try again:
  sudo apt-get install --yes --no-install-recommends ${missing[*]}"
    as_root=(sudo -n)
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes --no-install-recommends "${missing[@]}"
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10; do
    [[ -n "$candidate" ]] || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "Expected Python 3.10 or newer with venv, found none. Install it, or name it: PYTHON=/path/to/python3 bash ..."
}

create_venv() {
  if "$python" -c 'import pip' 2>/dev/null; then return; fi
  step "Creating the virtual environment .venv"
  local base
  base="$(find_python)"
  "$base" -m venv --clear "$venv"
}

# torch comes first and alone: nothing installed later may choose another version of it.
install_torch() {
  if "$python" - "$torch_version" <<'PY'
import importlib.metadata, sys
try:
    installed = importlib.metadata.version("torch")
except importlib.metadata.PackageNotFoundError:
    sys.exit(1)
sys.exit(installed.split("+")[0] != sys.argv[1])
PY
  then return; fi
  step "Installing torch $torch_version"
  if command -v nvcc >/dev/null; then
    "$python" -m pip install "torch==$torch_version"
    return
  fi
  # Without a CUDA toolkit only the CPU build can be compiled against. It is asked for first and comes from whatever index
  # or wheel folder pip is set up with; elsewhere the plain build is the CPU build.
  "$python" -m pip install "torch==$torch_version+cpu" 2>/dev/null ||
    "$python" -m pip install "torch==$torch_version"
}

check_torch_can_be_built_against() {
  command -v nvcc >/dev/null && return
  [[ "$("$python" -c 'import torch; print(torch.version.cuda)')" == None ]] ||
    fail "The installed torch is a CUDA build, and compiling against it needs the CUDA toolkit (nvcc).
  Install the toolkit, or put the CPU build of torch $torch_version into .venv, then try again."
}

# One hash over everything the package is built from.
sources_stamp() {
  (
    cd "$root"
    find dpcore accounting torch_ext python -type f \
      ! -path '*/__pycache__/*' ! -name '*.so' ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    sha256sum CMakeLists.txt pyproject.toml README.md LICENSE
    "$python" -c 'import sys, importlib.metadata as m; print(sys.version, m.version("torch"))'
  ) | sha256sum | cut -d' ' -f1
}

install_package() {
  local stamp_file="$venv/hushgrad.stamp" stamp
  stamp="$(sources_stamp)"
  if [[ -f "$stamp_file" && "$(<"$stamp_file")" == "$stamp" ]]; then return; fi
  check_torch_can_be_built_against
  step "Building and installing hushgrad (the first time takes some minutes)"
  "$python" -m pip install --quiet "scikit-build-core>=0.11" "pybind11>=2.13"
  rm -f "$stamp_file"
  "$python" -m pip install --no-build-isolation "$root[test,examples]"
  printf '%s\n' "$stamp" >"$stamp_file"
}

install_apt_packages
create_venv
install_torch
install_package
