//! The command line of `data-prep`, and the help that it gives.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

/// Prepare labelled images for training: folders of checksummed shards that training maps into memory and opens in an instant.
///
/// A preparation that was interrupted goes on with the same command; one that is complete says so. A folder that holds anything else
/// is refused. Nothing of the output depends on the number of threads.
#[derive(Parser)]
#[command(name = "data-prep", version, max_term_width = 120, arg_required_else_help = true, after_help = AFTER)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

/// In lines of at most 78 columns, so that none breaks where a terminal is narrow.
const AFTER: &str = "\
Examples:
  data-prep fetch mnist
  data-prep idx --images train-images-idx3-ubyte.gz \\
                --labels train-labels-idx1-ubyte.gz --out data/digits/train
  data-prep npy --images digits.npz:x_train --labels digits.npz:y_train \\
                --out data/digits/train
  data-prep folder --images photos/ --size 256 --out data/photos
  data-prep imagenet --train ILSVRC2012_img_train.tar \\
                     --val ILSVRC2012_img_val.tar \\
                     --devkit ILSVRC2012_devkit_t12.tar.gz --out data/imagenet
  data-prep verify data/imagenet
  data-prep show data/mnist/train --count 25 --out sheet.png

Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Subcommand)]
pub enum Command {
    /// Fetch MNIST or Fashion-MNIST and prepare it, into OUT/train and OUT/test
    ///
    /// The files that are published are kept in OUT/raw, by their SHA-256; those that lie there already are not fetched. curl fetches.
    Fetch(Fetch),
    /// From idx files (MNIST and its relatives), gzipped or not, in file order
    Idx(Idx),
    /// From NumPy's files, .npy or .npz, in the order of the array
    Npy(Npy),
    /// From CIFAR-10, its binary or Python version, into OUT/train and OUT/test
    Cifar10(Cifar10),
    /// From CIFAR-100, its binary or Python version, into OUT/train and OUT/test
    Cifar100(Cifar100),
    /// From a tree of JPEG and PNG files with a folder for each class
    ///
    /// Classes are numbered in the order of their folders' names. The samples keep the order of classes and names, as
    /// torchvision's ImageFolder has them, unless --shuffle-seed is given; training shuffles in any case. Links to folders are
    /// followed; hidden folders, and those of systems (__MACOSX, lost+found, @eaDir), are passed over and named.
    ///
    /// JPEGs get the pixels that libjpeg-turbo, and so Pillow, decodes. Left out and listed in unreadable.txt are photos that are damaged
    /// or cut off, JPEGs that are lossless, of 12 bits or coded arithmetically, photos of more than 134 million pixels, and files of more
    /// than 1 GiB. All photos that are prepared at the same time may take 1 GiB of memory, or 128 MiB for each thread where that is more:
    /// large ones are decoded few at a time.
    Folder(Folder),
    /// From ImageNet's official archives as they are, into OUT/train and OUT/val
    ///
    /// A class's index is its WNID's place in sorted order, as torchvision has it; the development kit's own numbers differ. The
    /// training photos are shuffled across the shards. Nothing is unpacked to disk.
    ///
    /// With 256 x 256 raw pixels the whole of ImageNet takes 262 GB, as JPEG about a tenth of that.
    Imagenet(Imagenet),
    /// Say what a data set holds
    Info(Inspect),
    /// Compare all checksums of a data set, in parallel
    Verify(Verify),
    /// Give a data set's statistics: mean and deviation per channel, frames, samples per class
    Stats(Inspect),
    /// Draw samples with their labels on a contact sheet, as stored or as training sees them
    ///
    /// The augmentation options have the names and meanings of the keys of [data] in a training configuration.
    Show(Show),
}

#[derive(Args)]
pub struct Fetch {
    #[arg(value_name = "SET")]
    pub set: Published,
    /// Folder to create [default: data/SET]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where the four files lie, gzipped, instead of where they are published
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Published {
    /// Handwritten digits
    Mnist,
    /// Clothes
    Fashion,
}

#[derive(Args)]
pub struct Idx {
    /// Images: [N, H, W] or [N, H, W, C] of unsigned bytes
    #[arg(long, value_name = "FILE")]
    pub images: PathBuf,
    /// Labels: [N] of unsigned bytes
    #[arg(long, value_name = "FILE")]
    pub labels: PathBuf,
    /// Number of classes [default: the largest label and one]
    #[arg(long, value_name = "N")]
    pub classes: Option<u32>,
    #[command(flatten)]
    pub out: Out,
}

#[derive(Args)]
pub struct Npy {
    /// Images: [N, H, W], [N, H, W, C] or [N, C, H, W] of unsigned bytes; FILE.npy, FILE.npz, or FILE.npz:ARRAY where a file holds
    /// several
    #[arg(long, value_name = "FILE")]
    pub images: PathBuf,
    /// Labels: [N] of whole numbers; files as above
    #[arg(long, value_name = "FILE")]
    pub labels: PathBuf,
    /// Number of classes [default: the largest label and one]
    #[arg(long, value_name = "N")]
    pub classes: Option<u32>,
    /// Where the channels are [default: where the shape has 1 to 4]
    #[arg(long, value_enum)]
    pub layout: Option<Layout>,
    #[command(flatten)]
    pub out: Out,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Layout {
    /// Last: [N, H, W, C]
    Hwc,
    /// First: [N, C, H, W]
    Chw,
}

#[derive(Args)]
pub struct Cifar10 {
    /// cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or the folder that it unpacks to
    #[arg(long, value_name = "PATH")]
    pub batches: PathBuf,
    #[command(flatten)]
    pub out: Out,
}

#[derive(Args)]
pub struct Cifar100 {
    /// cifar-100-binary.tar.gz or cifar-100-python.tar.gz, or the folder that it unpacks to
    #[arg(long, value_name = "PATH")]
    pub batches: PathBuf,
    /// Which of its labels
    #[arg(long, value_enum, default_value_t = Labels::Fine)]
    pub labels: Labels,
    #[command(flatten)]
    pub out: Out,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Labels {
    /// The hundred classes
    Fine,
    /// The twenty groups of five
    Coarse,
}

#[derive(Args)]
pub struct Folder {
    /// Folder that holds a folder for each class; photos may lie deeper
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// Resize the short side to N pixels and keep the central square [default: keep the photos' own frames]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=16384))]
    pub size: Option<u32>,
    /// Store the samples in a random order that depends on this number alone
    #[arg(long, value_name = "SEED")]
    pub shuffle_seed: Option<u64>,
    /// What whoever sees results on these data must know, in a few words: "JPEG copies"; reports show it beside the data's name
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    #[command(flatten)]
    pub storing: Storing,
    #[command(flatten)]
    pub out: Out,
}

#[derive(Args)]
pub struct Imagenet {
    /// ILSVRC2012_img_train.tar, an archive of archives
    #[arg(long, value_name = "TAR")]
    pub train: PathBuf,
    /// ILSVRC2012_img_val.tar
    #[arg(long, value_name = "TAR")]
    pub val: PathBuf,
    /// ILSVRC2012_devkit_t12.tar.gz, which knows the classes and the validation labels
    #[arg(long, value_name = "TAR.GZ")]
    pub devkit: PathBuf,
    /// Resize the short side to N pixels (Lanczos) and keep the central square
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = value_parser!(u32).range(1..=16384))]
    pub size: u32,
    /// Decides the order of the training photos
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub storing: Storing,
    #[command(flatten)]
    pub out: Out,
}

/// A shard's pixels, in MiB: few enough files for millions of samples, small enough to lose little when a preparation is
/// killed.
pub const SHARD_MIB: u32 = 256;

#[derive(Args)]
pub struct Out {
    /// Folder to create
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Pixels per shard, in MiB
    #[arg(long, value_name = "MIB", default_value_t = SHARD_MIB, value_parser = value_parser!(u32).range(1..=65536))]
    pub shard_mib: u32,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Store {
    /// Pixels as they are: large, and read at the speed of memory
    Raw,
    /// JPEG: small, decoded each time a sample is used
    Jpeg,
}

#[derive(Args)]
pub struct Storing {
    /// How photos are stored
    #[arg(long, value_enum, default_value_t = Store::Raw)]
    pub store: Store,
    /// Quality of stored JPEGs, 1 to 100
    #[arg(long, value_name = "Q", default_value_t = 90, value_parser = value_parser!(u8).range(1..=100))]
    pub quality: u8,
    /// Keep the whole frame after resizing, so that random crops may use all of it; frames then differ, and training needs
    /// data.crop
    #[arg(long)]
    pub full_frame: bool,
    /// Turn photos as their EXIF data say; torchvision ignores it, and so does this without the option
    #[arg(long)]
    pub exif_orientation: bool,
    /// Fail at the first photo that cannot be decoded, instead of leaving it out and listing it in unreadable.txt
    #[arg(long)]
    pub strict: bool,
    /// Threads that decode; 0 stands for one per processor
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    pub threads: usize,
}

#[derive(Args)]
pub struct Inspect {
    /// Folder that data-prep made
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Verify {
    /// Folder that data-prep made
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Threads that read; 0 stands for one per processor
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    pub threads: usize,
}

#[derive(Args)]
pub struct Show {
    /// Folder that data-prep made
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Numbers of the samples [default: random ones]
    #[arg(value_name = "INDEX")]
    pub indices: Vec<usize>,
    /// How many random samples
    #[arg(long, value_name = "N", default_value_t = 36, conflicts_with = "indices")]
    pub count: usize,
    /// PNG or JPEG file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Decides which samples are shown and how they are augmented
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    /// Augmentations, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = PossibleValuesParser::new(AUGMENTATIONS))]
    pub augment: Vec<String>,
    /// Height and width of the crop
    #[arg(long, value_names = ["H", "W"], num_args = 2)]
    pub crop: Vec<usize>,
    /// Black pixels around the frame that a random crop may take
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub crop_padding: usize,
    /// The epoch whose augmentation is shown
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub epoch: u64,
}

const AUGMENTATIONS: [&str; 4] = ["horizontal_flip", "vertical_flip", "random_crop", "random_resized_crop"];

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 0..=1024) => Ok(threads),
        _ => Err("a number from 0 to 1024 is expected".to_owned()),
    }
}
