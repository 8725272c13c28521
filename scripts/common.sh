# What the scripts share: messages, and Debian packages where they can be installed. Sourced, not run.

say() { printf '==> %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

can_install() { have apt-get && { [ "$(id -u)" -eq 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }; }

# Installs Debian packages, as root or through sudo. The package lists of a fresh container are empty and those of an old machine name
# files that are gone, so a failure is tried once more with new lists.
apt_install() {
    have apt-get || die "missing: $*. These are Debian's names; install your system's packages of the same content, or load your cluster's modules."
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        { have sudo && sudo true; } || die "missing Debian packages: $*. Installing them needs root: ask for 'apt-get install $*'."
        as_root=(sudo)
    fi
    say "installing Debian packages: $*"
    local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@")
    if ! "${install[@]}" >/dev/null 2>&1; then
        "${as_root[@]}" apt-get update -qq || die "apt-get update failed: see above"
        "${install[@]}" >/dev/null || die "apt-get could not install $*: see above"
    fi
}

# Whether the program is to compute on GPUs here: GPU says so, else the NVIDIA driver or its device does.
wants_gpu() {
    case ${GPU:-auto} in
        yes | libtorch) return 0 ;;
        no) return 1 ;;
        auto) [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidia0 ] || ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1' ;;
        *) die "GPU is '$GPU': give yes, no or libtorch" ;;
    esac
}

# Whether it is to have libtorch's kernels for GPUs too.
wants_libtorch() { wants_gpu && [ "${GPU:-}" = libtorch ]; }

# What cargo is to build biodist with.
features() { ! wants_libtorch || echo --features torch; }

# The folder that cargo builds into: target, unless the user has it elsewhere.
target_folder() { cargo metadata --format-version 1 --no-deps --locked | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'; }
