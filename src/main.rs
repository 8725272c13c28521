fn main() {
    tch::set_num_threads(1);
    let _u = mpi::initialize();
    println!("{:?}", tch::Tensor::zeros([2], (tch::Kind::Float, tch::Device::Cpu)));
}
