//! What programs that host sessions offer on their command line. Public as `args`.

pub mod args;
