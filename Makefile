# Everything a newcomer types; the work is in scripts/.

# Open MPI refuses to start as root, which containers often are, unless both are set.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
# Open MPI 4 crashes now and then where it shares its topology in memory; see launcher/src/mpirun.rs.
export OMPI_MCA_rtc_hwloc_vmhole := none

PREFIX ?= /usr/local

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup build test test-cluster demo install dist wheel manual clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 20

setup: ## install what a build needs: a C compiler, Open MPI, libclang, nasm; where there is a GPU, or GPU=yes, NVRTC and NCCL
	@scripts/setup

build: setup ## compile biodist, biodist-launch and data-prep into target/release
	cargo build --release --workspace --locked $$(. scripts/common.sh; features)

# Twice as many tests at a time as there are cores: jobs of several ranks take turns, and others compute while they wait.
test test-cluster: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

# Every test of the program without libtorch, and with it those that could tell the difference.
test: ## install what tests need, libtorch too, check formatting and lints, run every test
	@scripts/setup tests
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --locked -- --deny warnings
	cargo test --release --workspace --locked --no-fail-fast
	cargo clippy --release --package biodist --all-targets --features torch --locked -- --deny warnings
	cargo test --release --package biodist --features torch --locked --lib --test numerics -- --skip gpu:: --skip cuda::
	cargo test --release --package biodist --features torch --locked --test end_to_end -- bench:: builds:: same_bits::
	RUSTDOCFLAGS="--deny warnings --allow rustdoc::private-intra-doc-links" cargo doc --release --workspace --features torch --no-deps --document-private-items --locked

test-cluster: setup ## test on clusters made here: two hosts, and a Slurm (as root)
	@scripts/test_cluster

demo: build ## fetch MNIST or Fashion-MNIST, train on it with two processes, evaluate, report
	@scripts/demo

install: manual ## copy programs, libraries, configs, hosts, documents, manual pages and completions to PREFIX=/usr/local
	@scripts/install "$(PREFIX)"

dist: manual ## the same as a tarball in dist/, for machines of this kind with Open MPI
	@scripts/dist

wheel: manual ## a Python wheel in dist/, with the programs and the package that reads runs
	@scripts/wheel

manual: build
	cargo build --release --locked $$(. scripts/common.sh; features) --example manual

clean: ## remove what was compiled; libraries, data and runs stay
	cargo clean
