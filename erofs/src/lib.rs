//! EROFS images: a streaming, reproducible writer and a checking reader
