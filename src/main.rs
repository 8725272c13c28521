fn main() {
    biodist::compute::cuda::libraries::load_libtorch_cuda();
    tch::set_num_threads(1);
    let _u = mpi::initialize();
    println!("{:?}", tch::Tensor::zeros([2], (tch::Kind::Float, tch::Device::Cpu)));
}
