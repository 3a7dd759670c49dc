//! Pod networking
