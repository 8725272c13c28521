//! libjpeg-turbo's decoder behind a safe interface.
//!
//! The library reports an error through a callback that must not return: here it unwinds, up to the call that the library was entered
//! by. (It is compiled so that this is allowed.) Warnings come through another callback, and those of damage end the decoding as well.

use std::ffi::c_int;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::{Result, anyhow, bail, ensure};
use mozjpeg_sys::{
    DCTSIZE2, J_COLOR_SPACE, JWRN_ADOBE_XFORM, JWRN_BOGUS_ICC, JWRN_EXTRANEOUS_DATA, JWRN_JFIF_MAJOR, JWRN_JPEG_EOF, JWRN_NOT_SEQUENTIAL,
    jpeg_common_struct, jpeg_create_decompress, jpeg_decompress_struct, jpeg_destroy_decompress, jpeg_error_mgr, jpeg_finish_decompress,
    jpeg_has_multiple_scans, jpeg_mem_src, jpeg_progress_mgr, jpeg_read_header, jpeg_read_scanlines, jpeg_save_markers,
    jpeg_start_decompress, jpeg_std_error,
};

/// The segment that holds EXIF data, by its marker, and how its content begins.
const APP1: c_int = 0xe1;
const EXIF: &[u8] = b"Exif\0\0";
/// Scans of a file: ten are common. A file of a few bytes per scan would otherwise take hours.
const MAX_SCANS: c_int = 500;
/// Longest message of the library.
const MESSAGE: usize = 200;

/// A JPEG file whose header has been read.
pub struct Jpeg<'a> {
    /// Owned: the library keeps pointers into it, so it is only reached through this one.
    state: *mut State<'a>,
}

struct State<'a> {
    decoder: jpeg_decompress_struct,
    errors: Errors<'a>,
    progress: jpeg_progress_mgr,
}

/// The library's table of callbacks, and behind it what they note.
#[repr(C)]
struct Errors<'a> {
    table: jpeg_error_mgr,
    file: &'a [u8],
    /// The error, or the warning that means damage.
    damage: Option<String>,
}

impl<'a> Jpeg<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// Where it is damaged or of a form that cannot be decoded.
    pub fn open(file: &'a [u8]) -> Result<Jpeg<'a>> {
        // SAFETY: all three are tables of numbers and pointers as C has them, for which zeros are valid.
        let (decoder, table, progress) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        let state = State { decoder, errors: Errors { table, file, damage: None }, progress };
        let jpeg = Jpeg { state: Box::into_raw(Box::new(state)) };
        jpeg.enter(|decoder| {
            // SAFETY: `errors` and `progress` live as long as `decoder`, the file's bytes outlive all of them.
            unsafe {
                let errors = &raw mut (*jpeg.state).errors;
                jpeg_std_error(&mut (*errors).table);
                (*errors).table.error_exit = Some(error_exit);
                (*errors).table.emit_message = Some(emit_message);
                decoder.common.err = errors.cast();
                jpeg_create_decompress(decoder);
                (*jpeg.state).progress.progress_monitor = Some(count_scans);
                decoder.common.progress = &raw mut (*jpeg.state).progress;
                jpeg_mem_src(decoder, file.as_ptr(), file.len() as _);
                jpeg_save_markers(decoder, APP1, 0xffff);
                jpeg_read_header(decoder, 1);
            }
        })?;
        Ok(jpeg)
    }

    /// Height and width.
    pub fn frame(&self) -> (u32, u32) {
        (self.decoder().image_height, self.decoder().image_width)
    }

    /// Bytes that decoding takes besides the file. Where there are several scans, all coefficients are kept.
    pub fn memory(&self) -> u64 {
        let decoder = self.decoder();
        let pixels = u64::from(decoder.image_height) * u64::from(decoder.image_width);
        let components = decoder.num_components as u64;
        // SAFETY: the header has been read.
        let coefficients = if unsafe { jpeg_has_multiple_scans(decoder) } != 0 { 2 * components } else { 0 };
        let inks = if components == 4 { 4 } else { 0 };
        pixels * (3 + inks + coefficients)
    }

    /// The EXIF data without the mark that they begin with.
    pub fn exif(&self) -> Option<&[u8]> {
        let mut marker = self.decoder().marker_list;
        while !marker.is_null() {
            // SAFETY: the library keeps this list until the decoder is destroyed.
            let (data, next) = unsafe { (std::slice::from_raw_parts((*marker).data, (*marker).data_length as usize), (*marker).next) };
            if let Some(exif) = data.strip_prefix(EXIF) {
                return Some(exif);
            }
            marker = next;
        }
        None
    }

    /// Decodes to [height, width, 1].
    pub fn gray(self) -> Result<Vec<u8>> {
        self.decode(J_COLOR_SPACE::JCS_GRAYSCALE)
    }

    /// Decodes to [height, width, 3].
    pub fn rgb(self) -> Result<Vec<u8>> {
        match self.decoder().num_components {
            1 | 3 => self.decode(J_COLOR_SPACE::JCS_RGB),
            4 => Ok(from_inverted_cmyk(self.decode(J_COLOR_SPACE::JCS_CMYK)?)),
            other => bail!("it has {other} components, expected are 1, 3 or 4"),
        }
    }

    fn decode(self, colours: J_COLOR_SPACE) -> Result<Vec<u8>> {
        self.enter(|decoder| {
            decoder.out_color_space = colours;
            // SAFETY: the header has been read.
            unsafe { jpeg_start_decompress(decoder) };
        })?;
        let decoder = self.decoder();
        // SAFETY: the library has filled in the table, which has an entry for each component.
        let components = unsafe { std::slice::from_raw_parts(decoder.comp_info, decoder.num_components as usize) };
        // A component gets its table with its first scan. All scans have been read here, where there is more than one.
        let missing = components.iter().filter(|component| component.quant_table.is_null()).count();
        ensure!(missing == 0, "{missing} of its {} components are in no scan", components.len());
        ensure!(!self.is_unfinished(), "its last scans are missing");
        let row = decoder.output_width as usize * decoder.output_components as usize;
        let mut pixels = vec![0; row * decoder.output_height as usize];
        self.enter(|decoder| {
            for line in pixels.chunks_exact_mut(row) {
                let mut line = line.as_mut_ptr();
                // SAFETY: the line has the length that was computed from the decoder's own numbers. The source never suspends.
                unsafe { jpeg_read_scanlines(decoder, &mut line, 1) };
            }
            // SAFETY: the decoder was begun, and has read all lines.
            unsafe { jpeg_finish_decompress(decoder) };
        })?;
        Ok(pixels)
    }

    /// Whether scans of a progressive file announced that later ones make their coefficients more precise, and none came.
    fn is_unfinished(&self) -> bool {
        let decoder = self.decoder();
        if decoder.coef_bits.is_null() {
            return false;
        }
        let count = decoder.num_components as usize * DCTSIZE2;
        // SAFETY: the library keeps for each coefficient of each component how many of its bits are missing; -1 where all are.
        let missing = unsafe { std::slice::from_raw_parts(decoder.coef_bits.cast::<c_int>(), count) };
        missing.iter().any(|&bits| bits > 0)
    }

    /// Calls the library; fails where it reports an error or damage.
    fn enter(&self, call: impl FnOnce(&mut jpeg_decompress_struct)) -> Result<()> {
        let state = self.state;
        // SAFETY: the state is owned, and no reference into it is held across this.
        let done = catch_unwind(AssertUnwindSafe(|| call(unsafe { &mut (*state).decoder })));
        // SAFETY: the same.
        let damage = unsafe { (*state).errors.damage.take() };
        match (done, damage) {
            (Ok(()), None) => Ok(()),
            (_, Some(damage)) => Err(anyhow!(damage)),
            (Err(panic), None) => resume_unwind(panic),
        }
    }

    fn decoder(&self) -> &jpeg_decompress_struct {
        // SAFETY: as in `enter`.
        unsafe { &(*self.state).decoder }
    }
}

impl Drop for Jpeg<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `open`; destroying also works where creating failed.
        unsafe {
            jpeg_destroy_decompress(&mut (*self.state).decoder);
            drop(Box::from_raw(self.state));
        }
    }
}

/// Thrown by the callbacks; what is wrong is in [`Errors::damage`].
struct Stopped;

/// The error that ends the decoding.
extern "C-unwind" fn error_exit(common: &mut jpeg_common_struct) {
    let text = message(common);
    stop(common, text)
}

/// A warning, where `level` is negative; else a trace.
extern "C-unwind" fn emit_message(common: &mut jpeg_common_struct, level: c_int) {
    if level >= 0 {
        return;
    }
    let text = message(common);
    // SAFETY: `open` made `err` point to the whole of this; a `common` is the beginning of a decoder.
    let (errors, decoder) = unsafe { (&*common.err.cast::<Errors>(), &*(&raw const *common).cast::<jpeg_decompress_struct>()) };
    match errors.table.msg_code {
        // What is said of the version, the colours and the scan is wrong, but has no influence.
        JWRN_JFIF_MAJOR | JWRN_ADOBE_XFORM | JWRN_NOT_SEQUENTIAL | JWRN_BOGUS_ICC => {}
        // Bytes between the segments of the header are common and harmless.
        JWRN_EXTRANEOUS_DATA if decoder.input_scan_number == 0 || padding(errors, decoder) => {}
        // Where pixels are missing as well, a warning says so; but of a progressive file whole scans can be.
        JWRN_JPEG_EOF if decoder.coef_bits.is_null() => {}
        _ => stop(common, text),
    }
}

/// Whether the bytes that were just passed over are all the same, as some cameras put them behind a scan. What is left of a damaged
/// scan is not.
fn padding(errors: &Errors, decoder: &jpeg_decompress_struct) -> bool {
    // The first parameter of this warning says how many they are.
    let count = errors.table.msg_parm._bindgen_data_[0] as usize;
    // SAFETY: the library's source is there for as long as the decoder.
    let next = unsafe { (*decoder.src).next_input_byte } as usize;
    // At the end of a file without an end mark the library reads one of its own, elsewhere.
    let end = next.wrapping_sub(errors.file.as_ptr() as usize).min(errors.file.len());
    let passed = &errors.file[end.saturating_sub(count)..end];
    passed.iter().all(|byte| *byte == passed[0])
}

/// Ends the decoding of a file with too many scans.
extern "C-unwind" fn count_scans(common: &mut jpeg_common_struct) {
    // SAFETY: a `common` is the beginning of a decoder.
    let decoder = unsafe { &*(&raw const *common).cast::<jpeg_decompress_struct>() };
    if decoder.input_scan_number > MAX_SCANS {
        stop(common, format!("it has more than {MAX_SCANS} scans"))
    }
}

fn stop(common: &mut jpeg_common_struct, text: String) -> ! {
    // SAFETY: as in `emit_message`.
    let errors = unsafe { &mut *common.err.cast::<Errors>() };
    errors.damage = Some(text);
    // Not a panic: that would print a message.
    resume_unwind(Box::new(Stopped))
}

/// The library's present message.
fn message(common: &mut jpeg_common_struct) -> String {
    type Format = unsafe extern "C-unwind" fn(*mut jpeg_common_struct, *mut u8);
    let mut text = [0; MESSAGE];
    // SAFETY: the table is the library's own. The bindings give the function's buffer fewer bytes than the library may write.
    unsafe {
        if let Some(format) = (*common.err).format_message {
            mem::transmute::<*const (), Format>(format as *const ())(common, text.as_mut_ptr());
        }
    }
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(MESSAGE);
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// Pixels of inverted CMYK, as Adobe's programs write it and all others assume it, to RGB.
fn from_inverted_cmyk(cmyk: Vec<u8>) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(cmyk.len() / 4 * 3);
    for [cyan, magenta, yellow, key] in cmyk.as_chunks().0 {
        for ink in [cyan, magenta, yellow] {
            // As Pillow rounds it: the key less the key's share that the ink takes.
            let product = u32::from(255 - ink) * u32::from(*key) + 128;
            rgb.push(key - ((product + (product >> 8)) >> 8) as u8);
        }
    }
    rgb
}
