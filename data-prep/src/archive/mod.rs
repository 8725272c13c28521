//! The forms in which ImageNet comes: tar archives within tar archives, and the development kit's MATLAB file.

pub mod devkit;
pub mod matlab;
pub mod tar;
