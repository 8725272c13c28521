// The kernels' arguments: each kernel takes one of these. arguments.rs has the same structures.
//
// Activities are [position][sample][in_fours(channels)], weights [block][row][in_fours(columns)]; padding is
// zero, and stays so since every kernel writes it. A gradient, or a moment, lies as the parameters do.

struct Link {
    int position, block;  // position -1, in an update: a block without links, whose gradient is zero
};

// Links in groups: those of one position, or of one block.
struct Map {
    const int* starts;
    const Link* links;
    int rows, columns;  // of a block; columns in fours
    int pitch;          // floats from one sample of the source to the next
    int place;          // 0, or floats from one position to the next where a sample's positions are not `samples` apart
};

// Factors of all ranks, each laid out with `per_rank` samples. The sum runs over samples in the order of the
// global batch.
struct Factors {
    const float *pre, *post;
    long long pre_rank, post_rank;  // floats from one rank to the next
    int samples, per_rank;
    unsigned reciprocal;  // 2^32 / per_rank, rounded up; 0 for 1
};

// In device memory, so that a step can be replayed with other numbers.
struct Optimizer {
    int method;  // 0: Adam; 1: gradient descent with momentum; 2: Nesterov's form of it
    float scale, keep, beta1, beta2, size, deviation_scale, epsilon;
};

struct Job {
    const float* source;
    float *destination, *kept;  // kept 0: the slope follows from the value
};

struct Apply {
    Map map;
    Job job[3];
    const float *weights, *bias, *y, *argument;  // y 0: sums go through the nonlinearity; else they are multiplied by its slope at y
    float* partial;
    int bias_stride;  // floats from one position's bias to the next; 0 where all share it
    int samples, jobs, nonlinearity, positions, m_tiles, n_tiles, slices;
};

struct Update {
    Map map;
    Factors factors;
    float *weights, *first, *second, *gradients, *partial;  // moments: 0 where the optimiser has none
    const Optimizer* optimizer;
    long long begin, end;  // the elements that are made, of a part; end 0: all
    int by_source, groups, row_tiles, column_tiles, slices;
    unsigned skipped;  // blocks of the whole update before those of the launch
};

struct Bias {
    Factors factors;
    float *bias, *first, *second, *gradients, *partial;
    const Optimizer* optimizer;
    long long begin, end;  // the elements that are made
    int positions, columns, shared, slices;
    int skipped, padding;  // positions before those of the launch
};

struct Optimize {
    const float* sums;
    long long stride;  // floats from one of the `parts` of a sum to the next
    float *weights, *first, *second, *gradients;
    const Optimizer* optimizer;
    long long count;
    int parts, scaled;
};

// A window's average, or its largest value, channel by channel; or the way back of an error.
struct Pool {
    const int* starts;    // of the links by destination; on the way back, by source
    const Link* links;
    const int* windows;   // on the way back of an average: where each destination's links start
    const float* source;
    float *destination, *winners;  // of a maximum: the block that won, shaped as what is above
    int positions, samples, pitch, largest, back;
};

// Sums over positions of each sample, by channel: in slices, where there are several.
struct ChannelSums {
    const float *a, *b, *around, *numbers;  // around 0: a is as it is; b 0: products are squares
    float *out, *partial;
    int positions, samples, channels, slices;
};

// Numbers of each channel, from the sums of the samples of all ranks, which `all.post` are; 0: running statistics are taken.
struct ChannelNumbers {
    Factors all;
    const float *affine, *statistics;
    float *numbers, *drift, *one;
    double epsilon;
    int positions, channels;
};

struct MapChannels {
    const float *a, *delta, *numbers;  // delta 0: on the way up
    float *out, *kept;                 // kept 0: the slope follows from the value
    unsigned quads;
    int channels, nonlinearity;
};

struct Peak {
    float* out;
    int times;
};

struct Elementwise {
    const float *a, *b, *c, *d, *argument;
    float *out, *kept;  // kept 0: of a target no error is wanted, and the slope of a sum follows from its value
    long long count;
    float s0, s1;
    int operation, nonlinearity;
};

struct MeasuredError {
    const float *y, *target, *argument;
    float *error, *partial;
    int positions, samples, pitch, parts, nonlinearity;
};

struct SumMeasure {
    const float* partial;
    float* out;
    int parts, samples;
};

// Where a batch stands among all. In device memory.
struct Place {
    unsigned step, step_high, first;
    unsigned colours;  // that bytes are scaled by; 0: pixels are floats
};

struct Noise {
    const float* source;
    float* destination;
    const Place* place;
    unsigned positions, samples, channels, key_low, key_high, stream;
    float sigma;
};

// Four floats become four of bf16, or these floats again.
struct Wire {
    const float *source, *base;  // source 0: what was rounded is taken
    unsigned* rounded;
    float* out;
    long long count;
};

struct Signs {
    float* weights;
    const float* layer;
    int blocks, rows, columns;
    float equal, bound;
    unsigned key_low, key_high, draw, stream;
};

struct Output {
    const float* pre;
    float *output, *error;
    const unsigned* labels;
    const float* wanted;
    float *loss, *top1, *top5;
    int samples, units, linear;
    float smoothing;  // the part of a label that is spread over all classes
};

struct OneHot {
    float* destination;
    const unsigned* labels;
    int samples, classes;
    float smoothing;
};

struct Concatenate {
    const float *a, *b;
    float* destination;
    int samples, a_channels, b_channels;
};

struct Pixels {
    const void* source;
    float* destination;
    const float *scale, *shift;  // of bytes, by colour
    const Place* place;
    int samples, height, width, colours, rows;
    int lines, line, top, left, shifts;
};
