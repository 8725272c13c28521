# Variables by which cargo and the build scripts of libtorch's and MPI's bindings would build something else than setup has looked at.
# What cannot work is refused here, in a second and by name, and not by the compiler after minutes. Sourced, not run, after common.sh.
#
# Looked at and left alone, since a build works with any value that the compiler takes: RUSTFLAGS and its relatives, CARGO_TARGET_DIR,
# CARGO_PROFILE_*, CC, CFLAGS, CXXFLAGS, BINDGEN_EXTRA_CLANG_ARGS.

# Both end with what is wrong with the environment, unless nothing is. $1 is the libtorch that is built against.
check_torch_environment() {
    local libtorch=$1 name
    # Whatever its value: the bindings ask only whether it is there.
    [ -z "${LIBTORCH_USE_PYTORCH+set}" ] ||
        refuse LIBTORCH_USE_PYTORCH "the build would take the libtorch of Python's torch, and the program look for the one in $libtorch"
    refuse_empty LIBTORCH LIBTORCH_INCLUDE LIBTORCH_LIB LIBTORCH_CXX11_ABI CXX HOST_CXX
    for name in LIBTORCH_INCLUDE LIBTORCH_LIB; do
        [ -z "${!name+set}" ] || [ "$(realpath -m "${!name}")" = "$(realpath -m "$libtorch")" ] ||
            refuse "$name" "the build would take this half of libtorch from there, and the rest from $libtorch"
    done
    case ${LIBTORCH_CXX11_ABI-1} in
        1) ;;
        *) refuse LIBTORCH_CXX11_ABI "libtorch is compiled with 1" ;;
    esac
    case ${LIBTORCH_STATIC-0} in
        0 | false | FALSE) ;;
        *) refuse LIBTORCH_STATIC "libtorch comes as shared libraries, which cannot be linked statically" ;;
    esac
    refuse_absent CXX HOST_CXX "CXX_$(host_with_underscores)"
    other_libtorch_at_run_time "$libtorch"
}

check_environment() {
    local name
    refuse_empty MPICC RUSTC LIBCLANG_PATH
    [ -z "${CARGO_BUILD_TARGET+set}" ] || refuse CARGO_BUILD_TARGET "cargo would build into a folder of that name, where nothing looks"
    refuse_absent MPICC OMPI_CC RUSTC
    [ -z "${LIBCLANG_PATH+set}" ] || compgen -G "$LIBCLANG_PATH/libclang*.so*" >/dev/null || [[ -f $LIBCLANG_PATH && ${LIBCLANG_PATH##*/} == libclang* ]] ||
        refuse LIBCLANG_PATH "no libclang is there"
    [ -z "${MPI_PKG_CONFIG+set}" ] || [ -f "$MPI_PKG_CONFIG" ] || refuse MPI_PKG_CONFIG "there is no such file"
    for name in MPI_PKG_CONFIG CRAY_MPICH_DIR; do
        [ -z "${!name+set}" ] || say "note: $name is '${!name}': the build takes the MPI that it names, and not mpicc's"
    done
}

refuse_empty() {
    local name
    for name; do
        [ -z "${!name+set}" ] || [ -n "${!name}" ] || refuse "$name" "it is set and empty, which the build takes for a value"
    done
}

refuse_absent() {
    local name
    for name; do
        # The compiler may have arguments, or another one before it that keeps results.
        [ -z "${!name+set}" ] || have "${!name%% *}" || refuse "$name" "there is no such program"
    done
}

refuse() { die "$1 is '${!1}': $2. Do 'unset $1' and try again"; }

host_with_underscores() { "${RUSTC:-rustc}" -vV 2>/dev/null | sed -n 's/^host: //p' | tr - _; }

# Programs look there first.
other_libtorch_at_run_time() {
    local folders folder
    IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
    for folder in "${folders[@]}"; do
        [ ! -e "$folder/libtorch_cpu.so" ] || [ "$(realpath "$folder")" = "$(realpath -m "$1/lib")" ] ||
            die "LD_LIBRARY_PATH names $folder, which holds another libtorch than $1; the programs would load that one. Do 'unset LD_LIBRARY_PATH' and try again"
    done
}
