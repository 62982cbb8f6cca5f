# Shared by the project's scripts (bash): where guests live, how packages are installed and fetched.
# Sourced, never run.

guests_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo_dir=$(cd "$guests_dir/../.." && pwd)
cache_dir=${PENUMBRA_CACHE:-$HOME/.cache/penumbra}

say() { printf '%s\n' "$*" >&2; }
die() {
  say "$(basename "$0"): $*"
  exit 1
}

# Runs a command as root: directly, through sudo, or not at all.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    return 1
  fi
}

# Both steps are done at most once a script run. One broken index (a third-party one, or i386's) must not stop
# the rest: apt-get update then fails, but the other indexes are fresh.
apt_indexes_fresh=
refresh_indexes() {
  [ -z "$apt_indexes_fresh" ] || return 0
  apt_indexes_fresh=yes
  as_root apt-get update -qq >/dev/null 2>&1 || say "note: apt-get update failed for some index; going on with what there is"
}

add_i386() {
  dpkg --print-foreign-architectures | grep -qx i386 && return 0
  as_root dpkg --add-architecture i386 || return 1
  refresh_indexes
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Installs those packages of roms/guests/packages that are missing.
install_packages() {
  local package missing=()
  while read -r package; do
    installed "$package" || missing+=("$package")
  done < <(grep -v '^#' "$guests_dir/packages")
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  refresh_indexes
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    >/dev/null || die "cannot install ${missing[*]}: run this as root, with sudo, or install them by hand"
}

# debian_file PACKAGE[:ARCH] DIR: downloads the package into DIR and prints the file's name.
debian_file() {
  local package=$1 dir=$2 attempt
  mkdir -p "$dir"
  for attempt in 1 2; do
    rm -f "$dir/${package%%:*}"_*.deb
    (cd "$dir" && apt-get download -qq -o APT::Sandbox::User=root "$package" >/dev/null 2>&1)
    if ls "$dir/${package%%:*}"_*.deb 2>/dev/null; then
      return 0
    fi
    # A stale index names files that the mirror no longer holds.
    [ "$attempt" = 2 ] || refresh_indexes
  done
  return 1
}

# Paths of a guest's files. GUEST is amd64 or i686.
guest_dir() { printf '%s\n' "$cache_dir/guests/$1"; }
guest_kernel() { printf '%s\n' "$cache_dir/guests/$1/vmlinuz"; }
guest_modules() { printf '%s\n' "$(guest_dir "$1")/modules"; }
guest_available() { [ -s "$(guest_kernel "$1")" ]; }

guest_disk() { printf '%s\n' "$cache_dir/disks/debian-$1.img"; }

check_guest_name() {
  case $1 in
    amd64 | i686) ;;
    *) die "no such guest: $1 (amd64 or i686)" ;;
  esac
}

# Sets $vmm, the command to boot with (a list of words), and builds it unless PENUMBRA_VMM names another.
build_vmm() {
  vmm=${PENUMBRA_VMM:-}
  [ -z "$vmm" ] || return 0
  vmm="$repo_dir/build/release/penumbra run"
  local log
  log=$(mktemp)
  say "building the release binary"
  if ! (cd "$repo_dir" && cmake --preset release && cmake --build --preset release --target penumbra) >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    die "the build failed"
  fi
  rm -f "$log"
}
