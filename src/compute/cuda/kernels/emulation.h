// What device.cuh and CUDA give the kernels, for a C++ compiler: the same sources then run on a CPU, block
// after block, for tests.
//
// A thread is a stack of its own, and threads take turns where one waits for others: at a barrier, a shuffle
// or an mma. Asynchronous copies are made at the latest moment allowed, and what they will write is NaN until
// then, so that a missing wait or barrier shows in the results. One that is not on 16 bytes ends the kernel,
// as on a GPU. Dynamic shared memory is NaN at first. mma rounds its factors as the hardware does (tf32
// ignores the lower 13 bits), adds the products and the sum exactly in float64, and cuts that off to float32.
#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline float __uint_as_float(unsigned bits) { float x; std::memcpy(&x, &bits, 4); return x; }
static inline unsigned __float_as_uint(float x) { unsigned bits; std::memcpy(&bits, &x, 4); return bits; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }

namespace emulation {

struct Index { unsigned x, y, z; };
struct Copy { void* to; const void* from; };

// What a lane brings to a warp's common operation, and where its result goes.
struct Slot {
    float* d;
    const unsigned *a, *b;
    const void* value;
    void* result;
    int from;
};

struct Warp {
    unsigned waiting = 0, done = 0;
    Slot slots[32];
};

struct Thread {
    jmp_buf at;
    ucontext_t start;
    std::vector<char> stack = std::vector<char>(128 * 1024);
    bool started = false, finished = false;
    Index index;
    unsigned number;
    std::vector<Copy> open;                  // copies that are not committed
    std::vector<std::vector<Copy>> groups;   // those that are
};

static std::vector<Thread*> threads;
static Thread* now;
static std::vector<Warp> warps;
static unsigned count, live, at_barrier, barriers, idle;
static jmp_buf launcher;
static void (*kernel)(void**);
static void** arguments;
static std::vector<float4> dynamic;

[[noreturn]] static void turn_to(Thread* next) {
    now = next;
    if (next->started) _longjmp(next->at, 1);
    next->started = true;
    setcontext(&next->start);
    __builtin_unreachable();
}

static Thread* next_thread() {
    for (unsigned i = 1; i <= count; i++) {
        Thread* next = threads[(now->number + i) % count];
        if (!next->finished) return next;
    }
    return nullptr;
}

// Lets the other threads go on until `now` has its turn again. Where all only wait, the block will never end.
__attribute__((noinline)) static void wait_turn() {
    if (++idle > 4 * count + 64) _longjmp(launcher, 2);
    Thread* me = now;
    if (!_setjmp(me->at)) turn_to(next_thread());
}

static void release_barrier() {
    at_barrier = 0;
    barriers++;
    idle = 0;
}

static void thread_main() {
    for (;;) {
        kernel(arguments);
        now->finished = true;
        idle = 0;
        live--;
        if (live && at_barrier == live) release_barrier();
        Thread* me = now;
        Thread* next = next_thread();
        if (!next) {
            if (!_setjmp(me->at)) _longjmp(launcher, 1);
        } else if (!_setjmp(me->at)) {
            turn_to(next);
        }
    }
}

static void barrier() {
    unsigned generation = barriers;
    if (++at_barrier == live) return release_barrier();
    while (barriers == generation) wait_turn();
}

// The last lane to bring its slot does the work of all.
template <class F> static void together(const Slot& slot, F work) {
    Warp& warp = warps[now->number / 32];
    warp.slots[now->number % 32] = slot;
    unsigned generation = warp.done;
    if (++warp.waiting == 32) {
        work(warp.slots);
        warp.waiting = 0;
        warp.done++;
        idle = 0;
    } else {
        while (warp.done == generation) wait_turn();
    }
}

static void finish(std::vector<Copy>& copies) {
    for (const Copy& copy : copies) {
        if (copy.from) std::memcpy(copy.to, copy.from, 16);
        else std::memset(copy.to, 0, 16);
    }
}

// Eight columns of a row, whole or as they are stored.
typedef double Row __attribute__((vector_size(64)));
typedef float Stored __attribute__((vector_size(32)));
typedef int Bits __attribute__((vector_size(32)));
typedef long long WideBits __attribute__((vector_size(64)));

// Towards zero: the nearest float32, or the next smaller one where that is too large.
static Stored cut_off(Row x) {
    Stored y = __builtin_convertvector(x, Stored);
    auto magnitude = [](Row x) { return (Row)((WideBits)x & 0x7fffffffffffffff); };
    WideBits larger = magnitude(__builtin_convertvector(y, Row)) > magnitude(x);
    return (Stored)((Bits)y + __builtin_convertvector(larger, Bits));
}

// What is known of some factors. Those that fill a tile up are 0, most are in the small networks of tests, and
// times a number they change nothing.
struct Seen {
    WideBits other_than_0 = {}, no_number = {};
    Seen(const void* rows, int count) {
        for (int i = 0; i < count; i++) {
            Row x = ((const Row*)rows)[i];
            other_than_0 |= x != 0, no_number |= x - x != 0;
        }
    }
    static bool any(WideBits mask) {
        long long one = 0;
        for (int i = 0; i < 8; i++) one |= mask[i];
        return one;
    }
    bool zero() const { return !any(other_than_0); }
    bool number() const { return !any(no_number); }
};

// d[i][j] += a[i] b[j] of a warp: MT times 16 rows, NT times 8 columns, K deep. `read_a` and `read_b` find
// what thread t of row or column g holds.
template <int MT, int NT, int K, class A, class B> static void multiply(Slot* slots, A read_a, B read_b) {
    alignas(Row) double a[MT][16][K];
    Row b[NT][K];
    bool a_zero[MT][16], a_number[MT][16];
    for (int lane = 0; lane < 32; lane++) {
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < MT; i++) read_a(slots[lane].a + 4 * i, g, t, a[i]);
        for (int j = 0; j < NT; j++) read_b(slots[lane].b + 2 * j, g, t, b[j]);
    }
    for (int i = 0; i < MT; i++)
        for (int row = 0; row < 16; row++) {
            Seen seen(a[i][row], K / 8);
            a_zero[i][row] = seen.zero(), a_number[i][row] = seen.number();
        }
    // Two of the four results of a lane lie in row g, two in row g + 8.
    for (int j = 0; j < NT; j++) {
        Seen seen(b[j], K);
        bool b_zero = seen.zero(), b_number = seen.number();
        for (int i = 0; i < MT; i++)
            for (int row = 0; row < 16; row++) {
                if ((a_zero[i][row] && b_number) || (b_zero && a_number[i][row])) continue;
                auto at = [&](int pair) { return slots[row % 8 * 4 + pair].d + (i * NT + j) * 4 + row / 8 * 2; };
                float *p = at(0), *q = at(1), *r = at(2), *s = at(3);
                Row sum = __builtin_convertvector((Stored{p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1]}), Row);
                for (int k = 0; k < K; k++) sum += a[i][row][k] * b[j][k];
                Stored d = cut_off(sum);
                for (int pair = 0; pair < 4; pair++) at(pair)[0] = d[2 * pair], at(pair)[1] = d[2 * pair + 1];
            }
    }
}

static void run_block() {
    at_barrier = 0;
    live = count;
    idle = 0;
    for (unsigned i = 0; i < count; i++) {
        threads[i]->finished = false;
        threads[i]->open.clear();
        threads[i]->groups.clear();
    }
    for (Warp& warp : warps) warp.waiting = 0;
    std::memset((void*)dynamic.data(), 0xff, dynamic.size() * sizeof(float4));
}

typedef std::map<std::string, void (*)(void**)> Kernels;
static Kernels& kernels() {
    static Kernels all;
    return all;
}
struct Registered {
    Registered(const char* name, void (*kernel)(void**)) { kernels()[name] = kernel; }
};

}  // namespace emulation

static emulation::Index blockIdx, blockDim, gridDim;
#define threadIdx (emulation::now->index)
static inline void __syncthreads() { emulation::barrier(); }

#define KERNEL(NAME, ARGUMENTS, THREADS)                                                                           \
    static void NAME(const ARGUMENTS& p);                                                                          \
    static emulation::Registered registered_##NAME(#NAME, [](void** a) { NAME(*(const ARGUMENTS*)a[0]); });        \
    static void NAME(const ARGUMENTS& p)
#define INSTANCE(NAME, ARGUMENTS, THREADS, BLOCKS, ...) KERNEL(NAME, ARGUMENTS, THREADS) { __VA_ARGS__(p); }
#define DYNAMIC_SHARED(NAME) float* NAME = (float*)emulation::dynamic.data()

static inline void copy16(void* shared, const void* global, bool valid) {
    if (((uintptr_t)shared | (uintptr_t)global) % 16) _longjmp(emulation::launcher, 3);
    std::memset(shared, 0xff, 16);
    emulation::now->open.push_back({shared, valid ? global : nullptr});
}
static inline void commit() {
    emulation::now->groups.push_back(std::move(emulation::now->open));
    emulation::now->open.clear();
}
template <int N> static inline void arrived() {
    auto& groups = emulation::now->groups;
    while (groups.size() > N) {
        emulation::finish(groups.front());
        groups.erase(groups.begin());
    }
}

static inline unsigned tf32(float x) {
    unsigned bits = __float_as_uint(x);
    return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & 0xffffe000;
}
static inline unsigned bf16(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static inline unsigned bf16x2(float low, float high) { return bf16(high) << 16 | bf16(low); }

template <int MT, int NT> static void mma_tf32(float (&d)[MT][NT][4], const unsigned (&a)[MT][4], const unsigned (&b)[NT][2]) {
    emulation::Slot slot = {&d[0][0][0], &a[0][0], &b[0][0], nullptr, nullptr, 0};
    emulation::together(slot, [](emulation::Slot* slots) {
        auto value = [](unsigned bits) { return (double)__uint_as_float(bits & 0xffffe000); };
        emulation::multiply<MT, NT, 8>(
            slots,
            [&](const unsigned* x, int g, int t, double(*a)[8]) {
                for (int i = 0; i < 4; i++) a[g + i % 2 * 8][t + i / 2 * 4] = value(x[i]);
            },
            [&](const unsigned* x, int g, int t, emulation::Row* b) {
                for (int i = 0; i < 2; i++) b[t + i * 4][g] = value(x[i]);
            });
    });
}
template <int MT, int NT> static void mma_bf16(float (&d)[MT][NT][4], const unsigned (&a)[MT][4], const unsigned (&b)[NT][2]) {
    emulation::Slot slot = {&d[0][0][0], &a[0][0], &b[0][0], nullptr, nullptr, 0};
    emulation::together(slot, [](emulation::Slot* slots) {
        auto low = [](unsigned both) { return (double)__uint_as_float(both << 16); };
        auto high = [](unsigned both) { return (double)__uint_as_float(both & 0xffff0000); };
        emulation::multiply<MT, NT, 16>(
            slots,
            [&](const unsigned* x, int g, int t, double(*a)[16]) {
                for (int i = 0; i < 4; i++) {
                    a[g + i % 2 * 8][2 * t + i / 2 * 8] = low(x[i]);
                    a[g + i % 2 * 8][2 * t + i / 2 * 8 + 1] = high(x[i]);
                }
            },
            [&](const unsigned* x, int g, int t, emulation::Row* b) {
                for (int i = 0; i < 2; i++) b[2 * t + i * 8][g] = low(x[i]), b[2 * t + i * 8 + 1][g] = high(x[i]);
            });
    });
}

static inline float4 load_once(const float* at) { return *(const float4*)at; }
static inline void store_once(float* at, float4 x) { *(float4*)at = x; }
static inline float divide(float x, float y) { return x / y; }

template <class T> static T other_lane(T x, int mask) {
    T result;
    emulation::Slot slot = {nullptr, nullptr, nullptr, &x, &result, (int)(emulation::now->number % 32 ^ mask)};
    emulation::together(slot, [](emulation::Slot* slots) {
        for (int lane = 0; lane < 32; lane++) *(T*)slots[lane].result = *(const T*)slots[slots[lane].from].value;
    });
    return result;
}

// Runs a kernel: 0 where it ends. 1: its name is not known; 2: its threads wait for each other for ever; 3: a
// copy is not on 16 bytes. One at a time.
extern "C" int emulate(const char* name, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                       unsigned shared_bytes, void** arguments) {
    static std::mutex one;
    std::lock_guard<std::mutex> lock(one);
    auto found = emulation::kernels().find(name);
    if (found == emulation::kernels().end()) return 1;
    emulation::kernel = found->second;
    emulation::arguments = arguments;
    gridDim = {gx, gy, gz};
    blockDim = {bx, by, bz};
    emulation::count = bx * by * bz;
    emulation::dynamic.assign(shared_bytes / 16 + 1, float4{});
    emulation::warps.assign((emulation::count + 31) / 32, emulation::Warp{});
    for (unsigned i = 0; i < emulation::count; i++) {
        if (i == emulation::threads.size()) {
            emulation::Thread* thread = new emulation::Thread;
            getcontext(&thread->start);
            thread->start.uc_stack.ss_sp = thread->stack.data();
            thread->start.uc_stack.ss_size = thread->stack.size();
            thread->start.uc_link = nullptr;
            makecontext(&thread->start, emulation::thread_main, 0);
            thread->number = i;
            emulation::threads.push_back(thread);
        }
        emulation::threads[i]->index = {i % bx, i / bx % by, i / bx / by};
    }
    for (unsigned z = 0; z < gz; z++)
        for (unsigned y = 0; y < gy; y++)
            for (unsigned x = 0; x < gx; x++) {
                blockIdx = {x, y, z};
                emulation::run_block();
                int status = _setjmp(emulation::launcher);
                if (status > 1) {
                    emulation::threads.clear();  // they stand where they were
                    return status;
                }
                if (status == 0) {
                    emulation::now = emulation::threads[0];
                    emulation::turn_to(emulation::now);
                }
            }
    return 0;
}
